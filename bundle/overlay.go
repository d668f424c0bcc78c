package bundle

// An Overlay says of what a bundle's rootfs is mounted.
type Overlay struct {
	// Store is the directory of the layer store that the lower layers are in.
	Store string `json:"store"`
	// Scratch is the id of the scratch layer that takes what is written.
	Scratch string `json:"scratch"`
}

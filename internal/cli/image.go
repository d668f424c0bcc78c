package cli

import (
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/image"
)

var imageCommands = []entry{
	{"copy", newImageCopy},
	{"inspect", newImageInspect},
	{"load", newImageLoad},
	{"ls", newImageList},
	{"pull", newImagePull},
	{"push", newImagePush},
	{"rm", newImageRemove},
	{"save", newImageSave},
	{"tag", newImageTag},
}

func newImage(a *app) *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "Manage images", Args: noCommand, RunE: showHelp}
	for _, e := range imageCommands {
		c.AddCommand(e.make(a))
	}
	return c
}

// imageView is what inspect shows of an image.
type imageView struct {
	Name     string        `json:"name,omitempty"`
	ID       digest.Digest `json:"id"`     // of the configuration
	Digest   digest.Digest `json:"digest"` // of the manifest
	Size     int64         `json:"size"`   // of all blobs, in bytes
	Manifest v1.Manifest   `json:"manifest"`
	Config   v1.Image      `json:"config"`
}

func newImageView(img *image.Image) imageView {
	return imageView{
		Name: img.Name, ID: img.ID(), Digest: img.Descriptor.Digest, Size: img.Size(),
		Manifest: img.Manifest, Config: img.Config,
	}
}

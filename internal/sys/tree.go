package sys

// Attributes of a mount that are no file system's, as MOUNT_ATTR_* of
// include/uapi/linux/mount.h.
const (
	AttrReadOnly = 0x1
	AttrNoSuid   = 0x2
	AttrNoDev    = 0x4
	AttrNoExec   = 0x8
)

// Image is a file with a file system in it.
type Image struct {
	Path     string
	Type     string // of the file system
	Size     int64  // bytes of the file that are the file system's; 0 is all
	ReadOnly bool
}

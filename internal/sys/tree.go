package sys

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// Attributes of a mount that are no file system's, as MOUNT_ATTR_* of
// include/uapi/linux/mount.h.
const (
	AttrReadOnly = 0x1
	AttrNoSuid   = 0x2
	AttrNoDev    = 0x4
	AttrNoExec   = 0x8
)

// Image is a file with a file system in it. As long as something is mounted of it, nobody mounts it anew if one of both writes to
// it: that is ErrImageInUse. Programs that do not look at locks (flock(2)) are not kept from it.
type Image struct {
	Path     string
	Type     string // of the file system
	Size     int64  // bytes of the file that are the file system's; 0 is all
	ReadOnly bool
}

// ErrImageInUse is the error of mounting what would destroy, or see destroyed, a file system that is mounted already.
var ErrImageInUse = fmt.Errorf("it is mounted already, and one of both mounts writes: %w", errdefs.ErrUnavailable)

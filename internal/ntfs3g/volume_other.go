//go:build !linux

package ntfs3g

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/layer"
)

func unsupported() error {
	return fmt.Errorf("NTFS volumes in files are not supported on %s: %w", runtime.GOOS, errdefs.ErrNotImplemented)
}

// Volume is a mounted volume.
type Volume struct{}

// Format makes an empty volume.
func Format(context.Context, string, string, int64) error { return unsupported() }

// Grow makes a volume larger.
func Grow(context.Context, string) error { return unsupported() }

// Mount mounts the volume in the file path.
func Mount(context.Context, string) (*Volume, error) { return nil, unsupported() }

// Add puts an entry into the volume.
func (*Volume) Add(*layer.Entry, io.Reader) error { return unsupported() }

// Walk calls f for everything on the volume.
func (*Volume) Walk(func(e *layer.Entry, content io.Reader) error) error { return unsupported() }

// Close unmounts the volume.
func (*Volume) Close() error { return unsupported() }

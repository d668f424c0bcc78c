package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
)

// WriteManifest writes the manifest of the tree in dir, as UnpackTree does for the tree that it makes. Every file is read.
func WriteManifest(ctx context.Context, dir string, to io.Writer) error {
	root, err := inroot.Open(dir)
	if err != nil {
		return fmt.Errorf("make a manifest of %s: %w", dir, err)
	}
	w := newManifest(to)
	err = walk(ctx, root, func(o *object) error {
		if o.st.Type() == sys.ModeSocket {
			return nil
		}
		e, err := o.describe()
		if err != nil {
			return err
		}
		return w.Write(e)
	})
	if err = errors.Join(err, root.Close()); err == nil {
		err = w.Close(time.Now())
	}
	if err != nil {
		return fmt.Errorf("make a manifest of %s: %w", dir, err)
	}
	return nil
}

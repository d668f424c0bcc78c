package rootfs

import (
	"context"
	"fmt"

	"github.com/hostcompute/hcs/internal/inroot"
)

// Usage returns how many bytes of the disk a scratch layer takes. What goes while they are counted may be counted or not.
func (x *Scratch) Usage(ctx context.Context) (int64, error) {
	n, err := usage(ctx, x.dir)
	if err != nil {
		return 0, fmt.Errorf("measure scratch layer %s: %w", x.id, err)
	}
	return n, nil
}

// usage sums up the blocks of a tree, of files with several names once.
func usage(ctx context.Context, dir string) (int64, error) {
	root, err := inroot.Open(dir)
	if err != nil {
		return 0, err
	}
	defer func() { _ = root.Close() }() // read only
	top, err := root.OpenDir(".")
	if err != nil {
		return 0, err
	}
	defer func() { _ = top.Close() }()
	c := usageCounter{ctx: ctx, seen: make(map[objectID]bool)}
	err = c.dir(top)
	return c.bytes, err
}

type usageCounter struct {
	ctx   context.Context // of the one call that the counter is for
	seen  map[objectID]bool
	bytes int64
}

func (c *usageCounter) dir(d *inroot.Dir) error {
	c.bytes += d.Stat().Blocks * 512
	names, err := d.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		if err := nothingThere(c.object(d, name)); err != nil {
			return err
		}
	}
	return nil
}

func (c *usageCounter) object(d *inroot.Dir, name string) error {
	st, err := d.Lstat(name)
	switch {
	case err != nil:
		return err
	case st.IsDir():
		return inDir(d, name, c.dir)
	case st.Nlink > 1 && c.seen[idOf(&st)]:
		return nil
	case st.Nlink > 1:
		c.seen[idOf(&st)] = true
	}
	c.bytes += st.Blocks * 512
	return nil
}

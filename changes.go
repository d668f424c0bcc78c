package hcs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// Changes lists what a container has changed of the files that it was made with, names ascending: as rootfs.Changes has them,
// but that a directory is modified also where something in it is. Of a directory that is gone only the directory is listed, and
// so is of one whose content is. Mounts have no part in it.
func (h *Host) Changes(ctx context.Context, c *container.System) (_ []rootfs.Change, err error) {
	fail := func(err error) error { return fmt.Errorf("list changes of container %s: %w", c.Name(), err) }
	scratch, err := c.Scratch()
	if err != nil {
		return nil, fail(err)
	}
	base, err := c.OpenBase(ctx)
	if err != nil {
		return nil, fail(err)
	}
	defer func() { err = errors.Join(err, base.Close()) }()
	d := changeLister{base: base, places: mountTargets(c.Record().Spec), names: make(map[string]bool), known: make(map[string]presence)}
	err = h.layers.Diff(ctx, scratch, func(e *layer.Entry, _ io.Reader) error { return d.entry(e) })
	if err == nil {
		err = d.hidden()
	}
	if err != nil {
		return nil, fail(err)
	}
	slices.SortFunc(d.list, func(a, b rootfs.Change) int { return strings.Compare(a.Name, b.Name) })
	return d.list, nil
}

// presence says what the files below a scratch layer have of a name.
type presence int

const (
	absent presence = iota
	directory
	otherwise
)

// changeLister compares what a scratch layer has with the files below it.
type changeLister struct {
	base   *rootfs.Tree
	places map[string]bool     // of mounts
	names  map[string]bool     // that the scratch layer has
	known  map[string]presence // of directories of the scratch layer, below
	opaque []string            // directories of which nothing shows through
	list   []rootfs.Change
}

func (d *changeLister) entry(e *layer.Entry) error {
	d.names[e.Name] = true
	switch {
	case e.Name == "." || d.places[e.Name] && e.Kind != layer.Whiteout:
		return nil
	case e.Kind == layer.Opaque:
		d.opaque = append(d.opaque, e.Name)
		return nil
	}
	was, err := d.was(e.Name)
	switch {
	case err != nil:
		return err
	case e.Kind == layer.Dir:
		d.known[e.Name] = was
	}
	switch {
	case e.Kind == layer.Whiteout && was == absent: // it came and went
	case e.Kind == layer.Whiteout:
		d.add(e.Name, rootfs.Deleted)
	case was == absent:
		d.add(e.Name, rootfs.Added)
	default:
		d.add(e.Name, rootfs.Modified)
	}
	return nil
}

// was looks for a name below. No symbolic link leads to what a scratch layer merges with.
func (d *changeLister) was(name string) (presence, error) {
	if parent := path.Dir(name); parent != "." && d.known[parent] != directory {
		return absent, nil
	}
	e, err := d.base.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return absent, nil
	case errdefs.IsNotImplemented(err): // a socket
		return otherwise, nil
	case err != nil:
		return absent, err
	case e.Kind == layer.Dir:
		return directory, nil
	}
	return otherwise, nil
}

func (d *changeLister) add(name string, kind rootfs.ChangeKind) {
	d.list = append(d.list, rootfs.Change{Name: name, Kind: kind})
}

// hidden adds what opaque directories hide.
func (d *changeLister) hidden() error {
	for _, dir := range d.opaque {
		if d.known[dir] != directory {
			continue
		}
		names, err := d.base.Names(dir)
		if err != nil {
			return err
		}
		for _, last := range names {
			if name := path.Join(dir, last); !d.names[name] {
				d.add(name, rootfs.Deleted)
			}
		}
	}
	return nil
}

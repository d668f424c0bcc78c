package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/rootfs"
)

// treeName is what a tree is called in the directory that it is to fill.
const treeName = ".hcs-tree"

// Rootfs unpacks an image to a directory, which must not be there, or be
// empty: the error is of class ErrAlreadyExists then. An empty directory stays
// the one that it is, so it may be a mount, or a link to one.
//
// Of an image for Windows it is what drive C: holds, without what Linux has no
// place for: attributes, security descriptors, alternate streams. [Unpack]
// keeps these.
func Rootfs(ctx context.Context, src image.Source, img *image.Image, dir string, o UnpackOptions) error {
	there, err := isEmptyDir(dir)
	if err != nil {
		return fmt.Errorf("unpack image: %w", err)
	}
	tree := dir
	if there {
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			return fmt.Errorf("unpack image: %w", err)
		}
		tree = filepath.Join(dir, treeName)
	}
	if isWindows(img) {
		err = plainNT(ctx, src, img, tree, o)
	} else {
		_, err = rootfs.UnpackTree(ctx, tree, blobs(src, img), o.tree())
	}
	if err != nil {
		return fmt.Errorf("unpack image: %w", err)
	}
	if !there {
		return nil
	}
	if err := moveUp(dir, treeName); err != nil {
		return fmt.Errorf("unpack image to %s: %w", dir, err)
	}
	return nil
}

// isEmptyDir reports whether there is a directory with nothing in it but what
// a killed Rootfs left.
func isEmptyDir(dir string) (bool, error) {
	switch st, err := os.Stat(dir); {
	case isMissing(err):
		if _, err := os.Lstat(dir); err == nil {
			return false, exists("%s is a link to nothing", dir)
		}
		return false, nil
	case err != nil:
		return false, err
	case !st.IsDir():
		return false, exists("%s exists and is not a directory", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if e.Name() != ".hcs-unpack-"+treeName {
			return false, exists("%s exists and is not empty", dir)
		}
	}
	return true, nil
}

// moveUp moves what is in the directory name of dir into dir, and gives dir
// its owner, mode, attributes and times.
func moveUp(dir, name string) error {
	root, err := inroot.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // which only was a way in
	to, err := root.OpenDir(".")
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }()
	from, err := to.OpenDir(name)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	attrs, err := from.Self().Xattrs()
	if err != nil {
		return err
	}
	if err := moveAll(from, to); err != nil {
		return err
	}
	if err := to.Remove(name); err != nil {
		return err
	}
	self, meta := to.Self(), from.Stat()
	for attr, value := range attrs {
		if err := self.SetXattr(attr, value); err != nil {
			return err
		}
	}
	return errors.Join(self.Chown(meta.UID, meta.GID), self.Chmod(meta.Mode&0o7777), self.SetTimes(meta.MTime, meta.MTime))
}

func moveAll(from, to *inroot.Dir) error {
	names, err := from.Names()
	if err != nil {
		return err
	}
	// Only root moves things out of a directory that its mode protects.
	if err := from.Self().Chmod(from.Stat().Mode&0o7777 | 0o700); err != nil {
		return err
	}
	for _, name := range names {
		err := from.Rename(name, to, name)
		if errors.Is(err, fs.ErrPermission) {
			err = moveProtected(from, to, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// moveProtected moves a directory that its owner may not write to: its entry
// ".." changes.
func moveProtected(from, to *inroot.Dir, name string) error {
	st, err := from.Lstat(name)
	if err != nil {
		return err
	}
	if err := from.Chmod(name, st.Mode&0o7777|0o700); err != nil {
		return err
	}
	if err := from.Rename(name, to, name); err != nil {
		return err
	}
	return to.Chmod(name, st.Mode&0o7777)
}

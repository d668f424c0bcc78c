package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
)

// Bind is what is seen at a place in a tree: Source, a file or directory of the host's, or the file system in an image, or,
// without either, an empty directory that cannot be written to.
type Bind struct {
	Source, Target string
	Access         sys.Access // of Source
	Image          *sys.Image
}

// open makes the mount of it, attached nowhere.
func (b *Bind) open() (int, error) {
	switch {
	case b.Image != nil:
		return sys.OpenImage(*b.Image, sys.AttrNoDev|sys.AttrNoSuid)
	case b.Source != "":
		return sys.CloneMount(b.Source, b.Access)
	}
	return sys.EmptyDirectory()
}

func (b *Bind) isDir() (bool, error) {
	if b.Image != nil || b.Source == "" {
		return true, nil
	}
	info, err := os.Stat(b.Source)
	return err == nil && info.IsDir(), err
}

// Stage says what a tree is made of.
type Stage struct {
	// Overlay is mounted on its Target, which is any directory: nobody else sees it covered.
	Overlay sys.Overlay
	// Dir is a directory in place of the overlay's layers.
	Dir   string
	Binds []Bind
}

// OpenStage mounts what a tree is made of in a mount namespace that nobody else has, and returns the tree. All of it is gone when
// the tree is closed, and with the process, however that ends. Targets that are missing are made.
func OpenStage(s Stage) (*Tree, error) {
	t := new(Tree)
	clear := func() error { return sys.Unmount(s.Overlay.Target) }
	build := func() error {
		err := t.build(&s)
		if err == nil {
			return nil
		}
		if t.root != nil {
			err = errors.Join(err, t.root.Close())
		}
		return errors.Join(err, clear())
	}
	stage, err := sys.Stage(build, clear)
	if err != nil {
		return nil, fmt.Errorf("stage a tree: %w", err)
	}
	t.end = stage.Close
	return t, nil
}

func (t *Tree) build(s *Stage) (err error) {
	o, binds := &s.Overlay, s.Binds
	mounts := make([]int, 0, len(binds))
	defer func() {
		for _, m := range mounts {
			err = errors.Join(err, sys.Close(m))
		}
	}()
	for i := range binds { // before the overlay may cover them
		m, err := binds[i].open()
		if err != nil {
			return err
		}
		mounts = append(mounts, m)
	}
	if err := s.mountRoot(); err != nil {
		return err
	}
	if t.root, err = inroot.Open(o.Target); err != nil {
		return err
	}
	for i := range binds {
		if err := t.bind(&binds[i], mounts[i]); err != nil {
			return err
		}
	}
	if o.ReadOnly {
		return sys.ProtectMount(o.Target)
	}
	return nil
}

// mountRoot mounts what may be written to until the targets are there.
func (s *Stage) mountRoot() error {
	if s.Dir == "" {
		o := s.Overlay
		o.ReadOnly = false
		return sys.MountOverlay(o)
	}
	m, err := sys.CloneMount(s.Dir, sys.ReadWrite)
	if err != nil {
		return err
	}
	target, err := sys.OpenAt(sys.CWD, s.Overlay.Target, sys.OpenPath, 0)
	if err == nil {
		err = errors.Join(sys.AttachMount(m, target), sys.Close(target))
	}
	return errors.Join(err, sys.Close(m))
}

func (t *Tree) bind(b *Bind, mount int) error {
	_, err := t.root.Stat(b.Target)
	if errors.Is(err, fs.ErrNotExist) {
		err = t.makeTarget(b)
	}
	if err != nil {
		return err
	}
	return t.root.Attach(mount, b.Target)
}

// makeTarget makes a directory or an empty file, as the source is one.
func (t *Tree) makeTarget(b *Bind) error {
	isDir, err := b.isDir()
	if err != nil {
		return err
	}
	dir := b.Target
	if !isDir {
		dir = path.Dir(dir)
	}
	d, err := t.root.MkdirAll(dir, impliedMode)
	if err != nil {
		return err
	}
	if isDir {
		return d.Close()
	}
	f, err := d.Create(path.Base(b.Target), 0o644)
	if err == nil {
		err = f.Close()
	}
	return errors.Join(err, d.Close())
}

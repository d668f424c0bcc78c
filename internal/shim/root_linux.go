package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// overlay says what the root directory is made of.
func overlay(r *wire.Root) sys.Overlay {
	return sys.Overlay{Lower: r.Lower, Upper: r.Upper, Work: r.Work, UserXattr: r.UserXattr, Volatile: r.Volatile}
}

// mountPoint makes the directory that the root can be mounted on.
func mountPoint(spec *wire.Spec) (string, error) {
	dir := filepath.Join(spec.Dir, wire.RootName)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return dir, nil
}

// mountRoot mounts the root in this mount namespace, for an OCI runtime to find.
func mountRoot(spec *wire.Spec) error {
	dir, err := mountPoint(spec)
	if err != nil {
		return err
	}
	if spec.Root.Dir != "" {
		return sys.MountDir(spec.Root.Dir, dir)
	}
	o := overlay(&spec.Root)
	o.Target = dir
	return sys.MountOverlay(o)
}

// unmountRoot undoes mountRoot, as far as it came.
func unmountRoot(spec *wire.Spec) error {
	dir := filepath.Join(spec.Dir, wire.RootName)
	if err := sys.Unmount(dir); err != nil {
		return err
	}
	if err := syscall.Rmdir(dir); err != nil && err != syscall.ENOENT {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// newRoot mounts the root nowhere: it is for the first process to attach.
// Users is the user namespace that its owners are mapped to, or nil.
func newRoot(spec *wire.Spec, users *os.File) (*os.File, error) {
	if spec.Root.Dir != "" {
		return sys.NewBind(spec.Root.Dir, sys.OneMount, 0, users)
	}
	if users == nil {
		return sys.NewOverlay(overlay(&spec.Root))
	}
	stage, err := mountPoint(spec)
	if err != nil {
		return nil, err
	}
	root, err := sys.NewMappedOverlay(overlay(&spec.Root), users, spec.Native.IDs.First, stage)
	return root, errors.Join(err, syscall.Rmdir(stage))
}

// lend gives the first process what it cannot make itself: its root directory,
// and those mounts that take more than it may. The first process runs.
func lend(agent *wire.Conn, spec *wire.Spec, users *os.File) (err error) {
	root, err := newRoot(spec, users)
	if err != nil {
		return err
	}
	mounts := []*os.File{root}
	defer func() {
		closeAll(mounts) // the other end has them by now, or never will
	}()
	for _, l := range spec.Native.Lent {
		m, err := lentMount(&l, users)
		if err != nil {
			return fmt.Errorf("make the mount of %s: %w", l.Source, err)
		}
		mounts = append(mounts, m)
	}
	for begin := 0; begin < len(mounts); begin += wire.MaxFiles {
		some := mounts[begin:min(begin+wire.MaxFiles, len(mounts))]
		if err := agent.Send(wire.Message{Type: wire.Lend, Files: fds(some)}); err != nil {
			return err
		}
	}
	return nil
}

func lentMount(l *wire.Lent, users *os.File) (*os.File, error) {
	tree := sys.OneMount
	if l.Recursive {
		tree = sys.WholeTree
	}
	if !l.Mapped {
		users = nil
	}
	return sys.NewBind(l.Source, tree, l.Attributes, users)
}

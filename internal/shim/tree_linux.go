package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// inside is the container's tree, as a thread in its mount namespace sees it.
type inside struct {
	ns   *sys.Namespace
	root *inroot.Root
}

// enter calls do inside, unless the first process has ended. What do makes
// there belongs to the container's root.
func (s *shim) enter(do func(in inside) error) error {
	s.first.mu.Lock()
	defer s.first.mu.Unlock() // so that fd stays what it is
	if s.first.pid <= 0 {
		return tooLate()
	}
	return s.first.fd.InMountNamespace(s.ownRoot(), func(ns *sys.Namespace) error {
		root, err := inroot.Open("/")
		if err != nil {
			return err
		}
		return errors.Join(do(inside{ns, root}), root.Close())
	})
}

// ownRoot is the container's id 0, here.
func (s *shim) ownRoot() uint32 {
	if s.spec.Native == nil || s.spec.Native.IDs == nil {
		return 0
	}
	return s.spec.Native.IDs.First
}

// learnMounts remembers which mounts are on the targets, so that no other is
// ever taken away in their place. It is called before anything but the agent
// runs inside.
func (s *shim) learnMounts() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mounts = make(map[string]uint64)
	if len(s.spec.Targets) == 0 {
		return nil
	}
	return s.enter(func(in inside) error {
		for _, target := range s.spec.Targets {
			f, err := in.root.Locate(target)
			if errors.Is(err, fs.ErrNotExist) {
				continue // another of the mounts is over it
			}
			if err != nil {
				return err
			}
			id, isRoot, err := sys.MountID(f)
			if err := errors.Join(err, f.Close()); err != nil {
				return err
			}
			if isRoot {
				s.mounts[target] = id
			}
		}
		return nil
	})
}

// changeTree changes what is mounted, and which devices there are.
func (s *shim) changeTree(ch *wire.Change, done *undos) error {
	if len(ch.Detach)+len(ch.Attach)+len(ch.Disks)+len(ch.Make)+len(ch.Remove) == 0 {
		return nil
	}
	mounts, err := s.makeMounts(ch, done)
	if err != nil {
		return err
	}
	return s.enter(func(in inside) error {
		for _, target := range ch.Detach {
			if err := s.detach(in, target, done); err != nil {
				return err
			}
		}
		for _, m := range mounts {
			if err := s.mount(in, m.target, m.root, done); err != nil {
				return err
			}
		}
		for i := range ch.Remove {
			if err := s.removeNode(in, &ch.Remove[i], done); err != nil {
				return err
			}
		}
		for i := range ch.Make {
			if err := s.makeNode(in, &ch.Make[i], done); err != nil {
				return err
			}
		}
		return nil
	})
}

// placed is a mount that is to be attached.
type placed struct {
	root   *os.File
	target string
}

// makeMounts makes the mounts, of what this namespace shows: inside nothing of
// the host's can be seen.
func (s *shim) makeMounts(ch *wire.Change, done *undos) ([]placed, error) {
	users, err := s.users()
	if err != nil {
		return nil, err
	}
	if users != nil {
		done.keep(users.Close)
	}
	var list []placed
	add := func(f *os.File, target string, err error) error {
		if err != nil {
			return fmt.Errorf("mount at %s: %w", target, err)
		}
		done.keep(f.Close)
		list = append(list, placed{f, target})
		return nil
	}
	for i := range ch.Attach {
		m := &ch.Attach[i]
		owners := users
		if !slices.Contains(ch.Mapped, m.Target) {
			owners = nil
		}
		f, err := makeMount(m, owners)
		if err := add(f, m.Target, err); err != nil {
			return nil, err
		}
	}
	for i := range ch.Disks {
		f, err := openDisk(&ch.Disks[i], users)
		if err := add(f, ch.Disks[i].Target, err); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// users opens the container's user namespace, if it has one of its own.
func (s *shim) users() (*os.File, error) {
	s.first.mu.Lock()
	defer s.first.mu.Unlock()
	if s.ownRoot() == 0 || s.first.pid <= 0 {
		return nil, nil
	}
	return sys.OpenUserNamespace(s.first.pid)
}

func makeMount(m *wire.Mount, users *os.File) (*os.File, error) {
	if m.Type != "" {
		return sys.NewFileSystem(m.Type, m.Source, m.Options, m.Attributes, users)
	}
	tree := sys.OneMount
	if m.Recursive {
		tree = sys.WholeTree
	}
	return sys.NewBind(m.Source, tree, m.Attributes, users)
}

// mount attaches a mount at a target, which is made if it is missing, and
// stays.
func (s *shim) mount(in inside, target string, m *os.File, done *undos) error {
	id, _, err := sys.MountID(m)
	if err != nil {
		return err
	}
	st, err := sys.StatFD(int(m.Fd()))
	if err != nil {
		return err
	}
	place := in.root.LocateOrMakeFile
	if st.IsDir() {
		place = in.root.LocateOrMakeDir
	}
	f, err := place(target, 0o755)
	if err != nil {
		return fmt.Errorf("mount at %s: %w", target, err)
	}
	defer f.Close()
	err = sys.AttachMount(int(m.Fd()), int(f.Fd()))
	if err != nil {
		return fmt.Errorf("mount at %s: %w", target, err)
	}
	s.mounts[target] = id
	done.add(func() error {
		return s.enter(func(in inside) error {
			f, err := s.mounted(in, target)
			if err != nil {
				return err
			}
			defer f.Close()
			delete(s.mounts, target)
			return in.ns.Detach(f)
		})
	})
	return nil
}

// detach takes the mount on a target away.
func (s *shim) detach(in inside, target string, done *undos) error {
	f, err := s.mounted(in, target)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	defer f.Close()
	again, err := sys.MountAgain(f) // to put in its place, should anything fail
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	done.keep(again.Close)
	if err := in.ns.Detach(f); err != nil {
		return err
	}
	delete(s.mounts, target)
	done.add(func() error {
		return s.enter(func(in inside) error { return s.mount(in, target, again, new(undos)) })
	})
	return nil
}

// mounted opens the root of the mount that was put on a target. What the
// container has there instead, by moving directories and making links, is left
// alone.
func (s *shim) mounted(in inside, target string) (*os.File, error) {
	want, known := s.mounts[target]
	if !known {
		return nil, &wire.Failure{Class: wire.NotFound, Text: "nothing was mounted there"}
	}
	f, err := in.root.Locate(target)
	if err == nil {
		id, isRoot, ierr := sys.MountID(f)
		if ierr == nil && isRoot && id == want {
			return f, nil
		}
		err = errors.Join(ierr, f.Close())
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = &wire.Failure{Class: wire.Wrong, Text: "the container has moved it away"}
	}
	return nil, err
}

// makeNode makes a device node.
func (s *shim) makeNode(in inside, n *wire.DeviceNode, done *undos) error {
	if err := putNode(in, n); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = &wire.Failure{Class: wire.Wrong, Text: "there is something already"}
		}
		return fmt.Errorf("make device %s: %w", n.Path, err)
	}
	done.add(func() error { return s.enter(func(in inside) error { return in.root.Remove(n.Path) }) })
	return nil
}

func putNode(in inside, n *wire.DeviceNode) error {
	d, err := in.root.MkdirAll(path.Dir(n.Path), 0o755)
	if err != nil {
		return err
	}
	base := path.Base(n.Path)
	err = d.Mknod(base, n.Mode, n.Major, n.Minor)
	if err == nil {
		err = errors.Join(d.Chmod(base, n.Mode&sys.ModePerm), d.Chown(base, n.UID, n.GID))
	}
	return errors.Join(err, d.Close())
}

// removeNode removes a device node, if it is that device's. One that the
// container has removed or replaced needs no removal: it may not be used any
// more.
func (s *shim) removeNode(in inside, n *wire.DeviceNode, done *undos) error {
	st, err := in.root.Lstat(n.Path)
	if err == nil && (st.Type() != n.Mode&sys.ModeType || st.Major != n.Major || st.Minor != n.Minor) {
		return nil
	}
	if err == nil {
		err = in.root.Remove(n.Path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove device %s: %w", n.Path, err)
	}
	done.add(func() error { return s.enter(func(in inside) error { return putNode(in, n) }) })
	return nil
}

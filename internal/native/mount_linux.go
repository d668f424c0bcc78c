package native

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hostcompute/hcs/internal/wire"
)

// mount is a mount that is made and not attached yet.
type mount struct {
	fd     int
	target string
	isDir  bool
	// later are attributes that wait until everything is attached: read-only,
	// where other mounts need places to be made in this one.
	later uint64
}

// prepare makes all mounts that were not lent, while the host's tree can be
// seen. So it must for proc and sysfs too: in a user namespace the kernel asks
// whether there is one already (mount_too_revealing in fs/namespace.c).
func prepare(list []wire.Mount) ([]mount, error) {
	mounts := make([]mount, len(list))
	for i := range list {
		m := &list[i]
		makeOne, what := bind, m.Source
		switch {
		case m.Lent > 0:
			continue
		case m.Type != "":
			makeOne, what = makeFS, m.Type
		}
		made, err := makeOne(m)
		if err != nil {
			return nil, fault("make the mount of "+what+" for", m.Target, err)
		}
		mounts[i] = made
	}
	return mounts, nil
}

// takeLent adds those that were.
func takeLent(list []wire.Mount, mounts []mount, lent []int) error {
	for i := range list {
		m := &list[i]
		if m.Lent == 0 {
			continue
		}
		if m.Lent >= uint64(len(lent)) {
			return fault("find the mount for", m.Target, unix.EBADF)
		}
		taken, err := borrowed(m.Target, lent[m.Lent])
		if err != nil {
			return fault("find the mount for", m.Target, err)
		}
		mounts[i] = taken
	}
	return nil
}

// bind makes another mount of what is at a path of the host's. It has its
// attributes from the beginning: nothing is made in it for the mounts that
// come after.
func bind(m *wire.Mount) (mount, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if m.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, m.Source, flags)
	if err != nil {
		return mount{}, err
	}
	made, err := borrowed(m.Target, fd)
	if err != nil {
		return mount{}, err
	}
	return made, setAttributes(fd, m.Attributes)
}

// borrowed is a mount that is there already.
func borrowed(target string, fd int) (mount, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return mount{}, err
	}
	return mount{fd: fd, target: target, isDir: st.Mode&unix.S_IFMT == unix.S_IFDIR}, nil
}

func setAttributes(fd int, attributes uint64) error {
	if attributes == 0 {
		return nil
	}
	attr := unix.MountAttr{Attr_set: attributes}
	if attributes&unix.MOUNT_ATTR__ATIME != 0 {
		attr.Attr_clr = unix.MOUNT_ATTR__ATIME
	}
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr)
}

// makeFS makes a mount of a new file system.
func makeFS(m *wire.Mount) (mount, error) {
	fs, err := unix.Fsopen(m.Type, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return mount{}, err
	}
	defer func() { _ = unix.Close(fs) }()
	if err := unix.FsconfigSetString(fs, "source", m.Source); err != nil {
		return mount{}, err
	}
	for _, option := range m.Options {
		key, value, hasValue := strings.Cut(option, "=")
		if hasValue {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return mount{}, fault("set option", option, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return mount{}, err
	}
	later := m.Attributes & unix.MOUNT_ATTR_RDONLY
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(m.Attributes&^later))
	return mount{fd: fd, target: m.Target, isDir: true, later: later}, err
}

// attach puts the mounts into the tree.
func attach(root tree, mounts []mount) error {
	for i := range mounts {
		m := &mounts[i]
		mk := makeFile
		if m.isDir {
			mk = makeDir
		}
		target, err := root.openOrMake(m.target, mk)
		if err != nil {
			return fault("make the mount point", m.target, err)
		}
		err = move(m.fd, target)
		_ = unix.Close(target)
		if err != nil {
			return fault("mount on", m.target, err)
		}
	}
	return nil
}

// move attaches a mount to what target stands for.
func move(fd, target int) error {
	const both = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	return unix.MoveMount(fd, "", target, "", both)
}

// finish sets what had to wait, and lets go of the mounts.
func finish(root tree, mounts []mount, readOnly bool) error {
	for i := range mounts {
		m := &mounts[i]
		if err := setAttributes(m.fd, m.later); err != nil {
			return fault("set the attributes of the mount on", m.target, err)
		}
		_ = unix.Close(m.fd)
	}
	if readOnly {
		return fault("make read-only", "/", setAttributes(root.fd, unix.MOUNT_ATTR_RDONLY))
	}
	return nil
}

package native

import (
	"errors"
	"path"

	"golang.org/x/sys/unix"

	"github.com/hostcompute/hcs/internal/wire"
)

// links are those that programs expect in /dev, and where they lead
// (https://github.com/opencontainers/runtime-spec/blob/main/runtime-linux.md#dev-symbolic-links).
var links = [...][2]string{
	{"/dev/fd", "/proc/self/fd"},
	{"/dev/stdin", "/proc/self/fd/0"},
	{"/dev/stdout", "/proc/self/fd/1"},
	{"/dev/stderr", "/proc/self/fd/2"},
	{"/dev/ptmx", "pts/ptmx"},
}

func makeDevices(root tree, nodes []wire.DeviceNode) error {
	for i := range nodes {
		n := &nodes[i]
		err := root.makeIn(n.Path, func(dir int, name string) error { return makeNode(dir, name, n) })
		if err != nil {
			return fault("make device", n.Path, err)
		}
	}
	for _, l := range links {
		err := root.makeIn(l[0], func(dir int, name string) error { return unix.Symlinkat(l[1], dir, name) })
		if err != nil {
			return fault("make link", l[0], err)
		}
	}
	return nil
}

// makeIn makes something at the path, in a directory that is made if it is
// missing.
func (t tree) makeIn(name string, mk maker) error {
	dir, base := path.Split(name)
	fd, err := t.openOrMake(dir, makeDir)
	if err != nil {
		return err
	}
	return errors.Join(mk(fd, base), unix.Close(fd))
}

func makeNode(dir int, name string, n *wire.DeviceNode) error {
	if err := unix.Mknodat(dir, name, n.Mode, int(unix.Mkdev(n.Major, n.Minor))); err != nil {
		return err
	}
	if n.UID == 0 && n.GID == 0 {
		return nil
	}
	return unix.Fchownat(dir, name, int(n.UID), int(n.GID), unix.AT_SYMLINK_NOFOLLOW)
}

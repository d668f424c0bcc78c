package native

import (
	"errors"
	"path"

	"golang.org/x/sys/unix"
)

// isolateMounts keeps what is mounted here from spreading, and what others
// mount from coming here.
func isolateMounts() error {
	return fault("isolate the mounts below", "/", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
}

// tree is the container's root directory.
type tree struct{ fd int }

func (t tree) close() { _ = unix.Close(t.fd) }

// enter makes a mount that is nowhere attached the root, and lets the old one
// go: from here on this process has no name for anything of the host's.
func enter(root int) (tree, error) {
	const object = "the container's tree"
	err := unix.MoveMount(root, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return tree{}, fault("mount", object, err)
	}
	if err := unix.Fchdir(root); err != nil {
		return tree{}, fault("enter", object, err)
	}
	// The old root ends up mounted on the new one, where both are "."
	// (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return tree{}, fault("change the root to", object, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return tree{}, fault("leave the host's tree for", object, err)
	}
	return tree{root}, fault("enter", object, unix.Chdir("/"))
}

// open opens what is at the path, without touching it. Links are followed
// within the tree; those of procfs, which lead anywhere, are refused.
func (t tree) open(name string) (int, error) {
	how := unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(t.fd, name, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// make makes what a mount needs, in a directory: a directory, a file.
type maker func(dir int, name string) error

func makeDir(dir int, name string) error { return unix.Mkdirat(dir, name, 0o755) }

func makeFile(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

// maxLinks is how many links in a row that lead nowhere are completed, as many
// as the kernel follows.
const maxLinks = 40

// openOrMake opens what is at the path; where nothing is, it is made, and the
// directories that lead there. A link to nothing has that made which it leads
// to: images have /etc/resolv.conf like this.
func (t tree) openOrMake(name string, mk maker) (int, error) {
	for range maxLinks {
		fd, err := t.open(name)
		if err != unix.ENOENT {
			return fd, err
		}
		dir, base := path.Split(path.Clean(name))
		parent, err := t.openOrMake(dir, makeDir)
		if err != nil {
			return -1, err
		}
		err = mk(parent, base)
		if err == unix.EEXIST {
			var to string
			if to, err = readLink(parent, base); path.IsAbs(to) {
				name = to
			} else {
				name = path.Join(dir, to)
			}
		}
		if err = errors.Join(err, unix.Close(parent)); err != nil {
			return -1, err
		}
	}
	return -1, unix.ELOOP
}

func readLink(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

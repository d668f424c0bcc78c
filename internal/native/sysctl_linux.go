package native

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/hostcompute/hcs/internal/wire"
)

// setParameters sets parameters of the namespaces, by the container's own
// procfs, which shows those of the process that looks.
func setParameters(root tree, list []wire.Sysctl) error {
	if len(list) == 0 {
		return nil
	}
	dir, err := root.open("/proc/sys")
	if err != nil {
		return fault("open", "/proc/sys", err)
	}
	defer func() { _ = unix.Close(dir) }()
	var st unix.Statfs_t
	if err := unix.Fstatfs(dir, &st); err != nil || st.Type != unix.PROC_SUPER_MAGIC { // something else is mounted there
		return fault("find procfs at", "/proc/sys", errors.Join(err, unix.EINVAL))
	}
	for _, s := range list {
		if err := setParameter(dir, s); err != nil {
			return fault("set sysctl", s.Path+"="+s.Value, err)
		}
	}
	return nil
}

// setParameter writes to a file of procfs and to no other: nothing that is
// mounted there, no link.
func setParameter(dir int, s wire.Sysctl) error {
	fd, err := unix.Openat2(dir, s.Path, &unix.OpenHow{
		Flags:   unix.O_WRONLY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(s.Value))
	_ = unix.Close(fd) // the kernel has judged the value by now
	return err
}

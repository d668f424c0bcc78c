package native

import "golang.org/x/sys/unix"

// hide covers the paths that exist: a file with the null device, a directory
// with an empty file system.
func hide(root tree, paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	null, err := root.open("/dev/null")
	if err != nil {
		return fault("open", "/dev/null", err)
	}
	defer func() { _ = unix.Close(null) }()
	empty, err := emptyFS()
	if err != nil {
		return fault("make an empty directory for", paths[0], err)
	}
	defer func() { _ = unix.Close(empty) }()
	attached := false
	return eachThere(root, paths, "hide", func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		switch isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR; {
		case isDir && !attached: // the kernel takes its time to let go of what never was
			attached = true
			return move(empty, fd)
		case isDir:
			return cover(fd, empty, 0)
		}
		return cover(fd, null, 0)
	})
}

// fix makes the paths that exist read-only, with all below.
func fix(root tree, paths []string) error {
	return eachThere(root, paths, "make read-only", func(fd int) error { return cover(fd, fd, unix.MOUNT_ATTR_RDONLY) })
}

// eachThere calls do with what is at each path.
func eachThere(root tree, paths []string, op string, do func(fd int) error) error {
	for _, name := range paths {
		fd, err := root.open(name)
		if err == unix.ENOENT || err == unix.ENOTDIR {
			continue
		}
		if err == nil {
			err = do(fd)
			_ = unix.Close(fd)
		}
		if err != nil {
			return fault(op, name, err)
		}
	}
	return nil
}

// cover mounts what is at source on target, with all that is mounted below it.
func cover(target, source int, attributes uint64) error {
	fd, err := unix.OpenTree(source, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := setAttributes(fd, attributes); err != nil {
		return err
	}
	return move(fd, target)
}

func emptyFS() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(fs) }()
	for _, option := range [...][2]string{{"source", "tmpfs"}, {"size", "0"}, {"nr_inodes", "1"}, {"mode", "755"}} {
		if err := unix.FsconfigSetString(fs, option[0], option[1]); err != nil {
			return -1, err
		}
	}
	if err := unix.FsconfigSetFlag(fs, "ro"); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
}

package sys

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MountOverlay mounts the directories over each other on o.Target. A single lower directory without an upper one, which
// overlayfs refuses, becomes a read-only bind mount. Mounts below the lower directories are not part of it.
//
// Nothing is mounted if there is an error.
func MountOverlay(o Overlay) error {
	if err := o.Validate(); err != nil {
		return err
	}
	mount := mountOverlay
	if len(o.Lower) == 1 && o.Upper == "" {
		mount = bindReadOnly
	}
	if err := mount(&o); err != nil {
		return fmt.Errorf("mount %d layers on %q: %w", len(o.Lower), o.Target, err)
	}
	return nil
}

// Unmount detaches what is mounted on target, also while it is in use: the name is free at once, the file system goes with
// its last user. Where nothing is mounted, or nothing exists, there is nothing to do.
func Unmount(target string) error {
	err := again(func() error { return unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) })
	if err == nil || err == unix.EINVAL || err == unix.ENOENT {
		return nil
	}
	return fmt.Errorf("unmount %q: %w", target, err)
}

func bindReadOnly(o *Overlay) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, o.Lower[0], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open layer %q: %w", o.Lower[0], err)
	}
	defer func() { _ = unix.Close(fd) }()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("make the mount read only: %w", err)
	}
	return attach(fd, o.Target)
}

// NewOverlay mounts the directories over each other and attaches the mount nowhere: it is there for as long as the file
// is open, or until who gets the file attaches it. o.Target is not used.
func NewOverlay(o Overlay) (*os.File, error) {
	if err := o.validateLayers(); err != nil {
		return nil, err
	}
	mnt, err := newOverlay(&o, addLower)
	if err != nil {
		return nil, fmt.Errorf("mount %d layers: %w", len(o.Lower), err)
	}
	return os.NewFile(uintptr(mnt), "overlay"), nil
}

func mountOverlay(o *Overlay) error { return mountWith(o, addLower) }

func mountWith(o *Overlay, add func(fs int, o *Overlay) error) error {
	mnt, err := newOverlay(o, add)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(mnt) }()
	return attach(mnt, o.Target)
}

func newOverlay(o *Overlay, add func(fs int, o *Overlay) error) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open overlayfs: %w", err)
	}
	defer func() { _ = unix.Close(fs) }()
	if err := add(fs, o); err != nil {
		return -1, err
	}
	if err := configure(fs, o); err != nil {
		return -1, err
	}
	attrs := 0
	if o.Upper == "" || o.ReadOnly {
		attrs = unix.MOUNT_ATTR_RDONLY
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, explain(fs, fmt.Errorf("make the mount: %w", err))
	}
	return mnt, nil
}

// configure tells overlayfs the rest and lets it check.
//
// Redirects and metadata-only copies are neither made nor followed, whatever the kernel's defaults are: they say in an
// xattr where a file's name or content is, and so a diff of the upper directory alone would not be the whole change.
func configure(fs int, o *Overlay) error {
	type option struct{ key, value string }
	options := []option{{"source", "overlay"}, {"redirect_dir", "nofollow"}, {"metacopy", "off"}, {"index", "off"}}
	if o.Upper != "" {
		for key, dir := range map[string]string{"upperdir": o.Upper, "workdir": o.Work} {
			name, done, err := optionName(dir)
			if err != nil {
				return err
			}
			defer done()
			options = append(options, option{key, name})
		}
	}
	for _, opt := range options {
		if err := unix.FsconfigSetString(fs, opt.key, opt.value); err != nil {
			return explain(fs, fmt.Errorf("set option %s=%s: %w", opt.key, opt.value, err))
		}
	}
	for key, want := range map[string]bool{"userxattr": o.UserXattr, "volatile": o.Volatile && o.Upper != ""} {
		if !want {
			continue
		}
		if err := unix.FsconfigSetFlag(fs, key); err != nil {
			return explain(fs, fmt.Errorf("set option %s: %w", key, err))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return explain(fs, fmt.Errorf("set up overlayfs: %w", err))
	}
	return nil
}

// addLower names the lower directories one by one, which spares the limit of one page, or 256 bytes through fsconfig, for
// all of them together. Kernels before 6.5 know the joined form only.
func addLower(fs int, o *Overlay) error {
	for i, dir := range o.Lower {
		name, done, err := optionName(dir)
		if err != nil {
			return fmt.Errorf("add layer %q: %w", dir, err)
		}
		err = unix.FsconfigSetString(fs, "lowerdir+", name)
		done()
		if i == 0 && err == unix.EINVAL && exists(dir) {
			return addLowerJoined(fs, o)
		}
		if err != nil {
			return explain(fs, fmt.Errorf("add layer %q: %w", dir, err))
		}
	}
	return nil
}

// optionName returns a name of dir that fsconfig(2), which takes 255 bytes, and overlayfs, which gives some characters a
// meaning in some options, take as it is. It is to be used until
// done is called.
func optionName(dir string) (name string, done func(), err error) {
	if len(dir) < 256 && !strings.ContainsAny(dir, `\:`) {
		return dir, func() {}, nil
	}
	fd, err := OpenAt(CWD, dir, OpenPathFollow, 0)
	if err != nil {
		return "", nil, err
	}
	return procFD(fd), func() { _ = Close(fd) }, nil
}

func addLowerJoined(fs int, o *Overlay) error {
	if err := unix.FsconfigSetString(fs, "lowerdir", o.lowerOption()); err != nil {
		return explain(fs, fmt.Errorf("add %d layers at once, as kernels before 6.5 want it: %w", len(o.Lower), err))
	}
	return nil
}

func exists(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

func attach(mnt int, target string) error {
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the mount: %w", err)
	}
	return nil
}

// explain adds what the file system wrote about the failure into its context's log: lines that start with the severity, a
// letter ("e overlay: ...").
func explain(fs int, err error) error {
	var said []string
	buf := make([]byte, 1024)
	for {
		n, e := retry(func() (int, error) { return unix.Read(fs, buf) })
		if e != nil || n <= 0 {
			break
		}
		if line, ok := strings.CutPrefix(string(buf[:n]), "e "); ok {
			said = append(said, strings.TrimSpace(line))
		}
	}
	if len(said) == 0 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.Join(said, "; "))
}

package ntfs3g

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/temporary"
	"github.com/hostcompute/hcs/ntfs"
)

// Format makes an empty volume of all of the file path, as Windows formats small disks: clusters of 4 KiB. Start is where
// its partition will begin on the disk, in bytes.
func Format(ctx context.Context, path, label string, start int64) error {
	path, err := filepath.Abs(path) // which is no option
	if err != nil {
		return fmt.Errorf("format NTFS volume: %w", err)
	}
	args := []string{
		"--force", "--quick", "--quiet", "--sector-size", "512", "--cluster-size", "4096", "--heads", "255",
		"--sectors-per-track", "63", "--partition-start", strconv.FormatInt(start/512, 10),
	}
	if label != "" {
		args = append(args, "--label", label)
	}
	out, err := sys.Program(ctx, "mkntfs", append(args, path)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("format NTFS volume %s: mkntfs: %w: %s", path, cause(ctx, err), bytes.TrimSpace(out))
	}
	return nil
}

// Grow gives the volume that the file path begins with all of the file. The volume is as clean then as it was said to be before:
// ntfsresize has Windows check what it has checked itself.
func Grow(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("grow NTFS volume: %w", err)
	}
	for _, args := range [][]string{{"ntfsresize", "--force", "--no-progress-bar"}, {"ntfsfix", "--clear-dirty"}} {
		out, err := sys.Program(ctx, args[0], append(args[1:], path)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("grow NTFS volume %s: %s: %w: %s", path, args[0], cause(ctx, err), lastLines(out))
		}
	}
	return nil
}

// lastLines returns, in one, the lines that a program says why it gives up in.
func lastLines(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(len(lines)-3, 0):], " ")
}

func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}

// Volume is a mounted volume. One goroutine uses it.
type Volume struct {
	path string // the file
	dir  *temporary.Dir
	root string // where it is mounted, below dir

	cmd    *exec.Cmd
	exited chan error
	output bytes.Buffer

	dirs    map[string]string // directories, by their folded names
	names   map[string]uint64 // all others, by their folded names: the number of the file
	pending []pending         // directories, whose times come last
	last    *pending          // the file whose streams may follow
	changes map[uint64]ntfs.FileTime
	given   map[uint64]ntfs.Attributes
	system  []pending // files that become the system's last: ntfs-3g takes short ones for devices, as Interix has them
	buffer  []byte
	deep    deepDir
}

// deepDir is a directory that is open because the names below it are too long for one system call.
type deepDir struct {
	name string // "": none
	dir  *os.File
}

// maxPath is what a path below the mount may have, so that it does with what it is put together with.
const maxPath = 3500

// at returns a path to what is called name in the volume, until the next call.
func (v *Volume) at(name string) string {
	if len(name) <= maxPath {
		return filepath.Join(v.root, name)
	}
	cut := strings.LastIndexByte(name[:maxPath], '/')
	if cut < 0 {
		return filepath.Join(v.root, name)
	}
	if v.deep.name != name[:cut] {
		v.leaveDeep()
		dir, err := os.Open(filepath.Join(v.root, name[:cut]))
		if err != nil {
			return filepath.Join(v.root, name) // which tells what is wrong
		}
		v.deep = deepDir{name[:cut], dir}
	}
	return fmt.Sprintf("/proc/self/fd/%d%s", v.deep.dir.Fd(), name[cut:])
}

func (v *Volume) leaveDeep() {
	if v.deep.dir != nil {
		_ = v.deep.dir.Close() // only read
	}
	v.deep = deepDir{}
}

// Mount mounts the volume in the file path.
func Mount(ctx context.Context, path string) (*Volume, error) {
	v, err := mount(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("mount NTFS volume %s: %w", path, err)
	}
	return v, nil
}

func mount(ctx context.Context, path string) (*Volume, error) {
	dir, err := temporary.New(ctx, temporary.Config{Prefix: "hcs-ntfs-", Release: release})
	if err != nil {
		return nil, err
	}
	v := &Volume{
		path: path, dir: dir, root: dir.Path(mountName), exited: make(chan error, 1), dirs: map[string]string{"": ""},
		names: map[string]uint64{}, changes: map[uint64]ntfs.FileTime{}, given: map[uint64]ntfs.Attributes{},
	}
	if err := v.start(ctx); err != nil {
		return nil, errors.Join(err, v.detach())
	}
	return v, nil
}

// start runs ntfs-3g, which stays in the foreground so that its end can be waited for: what it has not written then is lost
// to nobody. Streams go by name:stream, because as attributes they have at most 64 KiB.
func (v *Volume) start(ctx context.Context) error {
	if err := os.Mkdir(v.root, 0o700); err != nil {
		return err
	}
	before, err := device(v.root)
	if err != nil {
		return err
	}
	v.cmd = sys.Program(context.WithoutCancel(ctx), "ntfs-3g", "-o", "no_def_opts,big_writes,streams_interface=windows,special_files=wsl,no_detach", v.path, v.root)
	v.cmd.Stdout, v.cmd.Stderr = &v.output, &v.output
	if err := v.run(); err != nil {
		v.cmd = nil
		return err
	}
	tick := time.NewTicker(2 * time.Millisecond) // it does not tell when it is ready but by the mount
	defer tick.Stop()
	for {
		if now, err := device(v.root); err == nil && now != before {
			return nil
		}
		select {
		case err := <-v.exited:
			v.cmd = nil
			return fmt.Errorf("ntfs-3g: %w: %s: %w", err, bytes.TrimSpace(v.output.Bytes()), errdefs.ErrFailedPrecondition)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// run starts the program, whose end v.exited tells. It unmounts the volume on SIGTERM, which it gets when this process is
// killed: the kernel sends it when the thread ends that has started the program. To a program that is setuid root it sends
// none if an ordinary user started it: that volume stays mounted until the next one is.
func (v *Volume) run() error {
	cmd, started := v.cmd, make(chan error)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			v.exited <- cmd.Wait()
		}
	}()
	return <-started
}

func device(dir string) (uint64, error) {
	var st syscall.Stat_t
	err := syscall.Lstat(dir, &st)
	return st.Dev, err
}

// Close sets what is to be set last, unmounts the volume, and waits until all is in the file.
func (v *Volume) Close() error {
	err := errors.Join(v.finish(), v.detach())
	if err == nil && len(v.changes) > 0 {
		err = v.setChangeTimes()
	}
	if err != nil {
		return fmt.Errorf("close NTFS volume %s: %w", v.path, err)
	}
	return nil
}

func (v *Volume) setChangeTimes() error {
	f, err := os.OpenFile(v.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(setChangeTimes(f, v.changes), f.Close())
}

// detach undoes mount.
func (v *Volume) detach() error {
	var errs []error
	v.leaveDeep()
	if v.cmd != nil {
		if err := unmount(v.root); err != nil {
			errs = append(errs, err, v.cmd.Process.Kill())
		}
		if err := <-v.exited; err != nil {
			errs = append(errs, fmt.Errorf("ntfs-3g: %w: %s", err, bytes.TrimSpace(v.output.Bytes())))
		}
		v.cmd = nil
	}
	return errors.Join(append(errs, v.dir.Remove())...)
}

// mountName is that of the directory to mount at in a temporary one.
const mountName = "volume"

// release makes sure that no volume is mounted in a temporary directory, or says why one is: what is to be removed is the
// directory and not what the volume has. A killed process leaves a mount where it was not its own to take away.
func release(dir string) error {
	root := filepath.Join(dir, mountName)
	err := os.Remove(root)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := unmount(root); err != nil {
		return err
	}
	return os.Remove(root)
}

// unmount takes the mount away. An ordinary user, for whom ntfs-3g mounts where it is installed setuid root, has FUSE's own
// program for that.
func unmount(root string) error {
	err := sys.Unmount(root)
	if !errors.Is(err, os.ErrPermission) {
		return err
	}
	for _, name := range []string{"fusermount3", "fusermount"} {
		out, failed := sys.Program(context.Background(), name, "-u", "-z", root).CombinedOutput()
		if failed == nil {
			return nil
		}
		err = errors.Join(err, fmt.Errorf("%s: %w: %s", name, failed, bytes.TrimSpace(out)))
	}
	return err
}

package userns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// UIDs returns the user ids of this process's user namespace.
var UIDs = sync.OnceValues(func() (Map, error) { return readMap("/proc/self/uid_map") })

// GIDs returns the group ids of this process's user namespace.
var GIDs = sync.OnceValues(func() (Map, error) { return readMap("/proc/self/gid_map") })

func readMap(file string) (Map, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return Map{{Count: allIDs}}, nil // a kernel without user namespaces
	}
	if err != nil {
		return nil, err
	}
	m, err := parseMap(string(text))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return m, nil
}

// IsInitial reports whether this process is in the initial user namespace, as
// far as can be told.
func IsInitial() bool {
	m, err := UIDs()
	return err == nil && m.isInitial()
}

// arrivalVariable tells the program that was started again what to tidy up:
// two descriptors, and the directory to return to.
const arrivalVariable = "HCS_USERNS_ARRIVAL"

// Enter has this program go on as root: it returns at once, without an error,
// if it is that already, and else runs the program again in this process's
// place, with the same arguments, environment and descriptors, as root of a
// user and a mount namespace of its own. So it is to be called before anything
// else is done; what was read from a pipe by then is lost.
//
// The namespace has the user's own uid and gid as 0, and, as 1 and following,
// those that /etc/subuid and /etc/subgid give the user, for which the
// setuid programs newuidmap and newgidmap are needed. It has the one id alone
// where neither file names the user.
func Enter() error {
	if err := Arrive(); err != nil || os.Geteuid() == 0 {
		return err
	}
	return fmt.Errorf("become root of a user namespace: %w", enter())
}

// Arrive ends what Enter began, in the program that was started again: it
// returns to the working directory, which a mount namespace does not keep. Enter
// does it too; a program that looks at names before it calls Enter, or only
// sometimes does, calls Arrive first. It does nothing in other programs.
func Arrive() error {
	arrival, again := os.LookupEnv(arrivalVariable)
	if !again {
		return nil
	}
	if err := os.Unsetenv(arrivalVariable); err != nil {
		return err
	}
	f := strings.SplitN(arrival, ",", 3)
	if len(f) != 3 || os.Geteuid() != 0 {
		return errors.New("become root of a user namespace: it is another user that was become")
	}
	for _, s := range f[:2] {
		if fd, err := strconv.Atoi(s); err == nil && fd > 2 {
			_ = syscall.Close(fd) // which was only to be passed on
		}
	}
	if err := os.Chdir(f[2]); err != nil {
		return fmt.Errorf("return to the working directory: %w", err)
	}
	return nil
}

// enter returns why it did not come to that.
func enter() error {
	uids, gids, err := maps()
	if err != nil {
		return err
	}
	nsenter, err := lookPath("nsenter", "util-linux")
	if err != nil {
		return err
	}
	self, err := program()
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	userFD, mountFD, err := create(uids, gids)
	if err != nil {
		return err
	}
	file := func(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
	// A program of several threads, as all in Go are, cannot enter a user namespace; nsenter(1) can.
	argv := append([]string{
		"nsenter", "--user=" + file(userFD), "--mount=" + file(mountFD), "--preserve-credentials", "--", self,
	}, os.Args[1:]...)
	env := append(os.Environ(),
		ownerVariable+"="+strconv.Itoa(os.Geteuid()),
		fmt.Sprintf("%s=%d,%d,%s", arrivalVariable, userFD, mountFD, dir))
	return fmt.Errorf("start %s: %w", nsenter, syscall.Exec(nsenter, argv, env))
}

// maps returns what the namespace is to have.
func maps() (uids, gids Map, err error) {
	uid, gid := os.Geteuid(), os.Getegid()
	names := []string{strconv.Itoa(uid)}
	if u, err := user.LookupId(names[0]); err == nil {
		names = append(names, u.Username)
	}
	subuid, err := readIfThere("/etc/subuid")
	if err != nil {
		return nil, nil, err
	}
	subgid, err := readIfThere("/etc/subgid")
	if err != nil {
		return nil, nil, err
	}
	uids, gids = mapping(uint32(uid), subuid, names...), mapping(uint32(gid), subgid, names...)
	if len(uids) == 1 || len(gids) == 1 { // one without the other is of no use to files
		return uids[:1], gids[:1], nil
	}
	return uids, gids, nil
}

func readIfThere(file string) (string, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

// lookPath finds a program, also where an ordinary user's PATH does not lead.
func lookPath(name, from string) (string, error) {
	for _, file := range []string{name, "/usr/bin/" + name, "/bin/" + name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(file); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", fmt.Errorf("find the program %s: it is not installed (Debian's package %s has it): %w", name, from, os.ErrNotExist)
}

// program returns this program's file, by the name that it was called by if
// that leads there: some are several in one.
func program() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	called, err := exec.LookPath(os.Args[0])
	if err != nil {
		return self, nil
	}
	ours, err1 := os.Stat("/proc/self/exe")
	named, err2 := os.Stat(called)
	if err1 != nil || err2 != nil || !os.SameFile(ours, named) {
		return self, nil
	}
	return filepath.Abs(called)
}

// create makes the namespaces and returns descriptors of them, which are open
// in programs that this one becomes.
func create(uids, gids Map) (userFD, mountFD int, err error) {
	cat, err := lookPath("cat", "coreutils")
	if err != nil {
		return -1, -1, err
	}
	// It does nothing but be there, in the new namespaces, until its input ends.
	holder := exec.Command(cat)
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS}
	input, err := holder.StdinPipe()
	if err != nil {
		return -1, -1, err
	}
	if err := holder.Start(); err != nil {
		return -1, -1, refusal(err)
	}
	defer func() { err = errors.Join(err, release(holder, input)) }()
	pid := holder.Process.Pid
	if err := writeMaps(pid, uids, gids); err != nil {
		return -1, -1, err
	}
	return open(pid)
}

// release lets the holder go.
func release(holder *exec.Cmd, input io.Closer) error {
	return errors.Join(input.Close(), holder.Wait())
}

// refusal says what may be wrong when there is no new user namespace.
func refusal(err error) error {
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("the kernel does not let this user make one (see user.max_user_namespaces and, if there are, "+
			"kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns): %w", err)
	}
	return err
}

func writeMaps(pid int, uids, gids Map) error {
	proc := "/proc/" + strconv.Itoa(pid)
	if len(uids) == 1 && len(gids) == 1 {
		return errors.Join(
			os.WriteFile(proc+"/setgroups", []byte("deny"), 0), // else the kernel would not take the next
			os.WriteFile(proc+"/gid_map", []byte(strings.Join(gids.args(), " ")), 0),
			os.WriteFile(proc+"/uid_map", []byte(strings.Join(uids.args(), " ")), 0))
	}
	var errs [2]error
	var both sync.WaitGroup
	both.Go(func() { errs[0] = helper("newuidmap", pid, uids) })
	both.Go(func() { errs[1] = helper("newgidmap", pid, gids) })
	both.Wait()
	return errors.Join(errs[:]...)
}

// helper runs newuidmap(1) or newgidmap(1).
func helper(name string, pid int, m Map) error {
	path, err := lookPath(name, "uidmap")
	if err != nil {
		return err
	}
	out, err := exec.Command(path, append([]string{strconv.Itoa(pid)}, m.args()...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("map the ids of the user: %s: %w: %s", path, err, bytes.Join(bytes.Fields(out), []byte(" ")))
	}
	return nil
}

func open(pid int) (userFD, mountFD int, err error) {
	proc := "/proc/" + strconv.Itoa(pid) + "/ns/"
	if userFD, err = syscall.Open(proc+"user", syscall.O_RDONLY, 0); err != nil {
		return -1, -1, &os.PathError{Op: "open", Path: proc + "user", Err: err}
	}
	if mountFD, err = syscall.Open(proc+"mnt", syscall.O_RDONLY, 0); err != nil {
		return -1, -1, errors.Join(&os.PathError{Op: "open", Path: proc + "mnt", Err: err}, syscall.Close(userFD))
	}
	return userFD, mountFD, nil
}

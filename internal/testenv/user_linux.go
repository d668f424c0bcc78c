package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// NewUser returns an ordinary user with those ids who runs the programs hcs, hcs-shim and hcs-agent of this source. It is
// this process's own user, for whom ManyIDs are skipped, or, for root, one that there is only in his commands' mount
// namespaces: nothing of the machine's is changed. The package's TestMain is Main.
func NewUser(t testing.TB, ids SubIDs) *User {
	t.Helper()
	NeedKernel(t, UserNamespaces)
	u := &User{path: builtPrograms(t)}
	if os.Geteuid() != 0 {
		if ids == ManyIDs {
			NeedRoot(t)
		}
		u.Home = t.TempDir()
		return u
	}
	NeedCommand(t, "newuidmap", "newgidmap", "setpriv", "unshare", "mount")
	dir := t.TempDir()
	u.Home, u.etc = filepath.Join(dir, "home"), filepath.Join(dir, "etc")
	if err := u.make(dir, ids); err != nil {
		t.Fatal(err)
	}
	return u
}

func (u *User) make(dir string, ids SubIDs) error {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return err
	}
	passwd = fmt.Appendf(passwd, "hcs-tester:x:%d:%d::%s:/bin/sh\n", UserID, UserID, u.Home)
	var subIDs []byte
	if ids == ManyIDs {
		subIDs = fmt.Appendf(nil, "hcs-tester:%d:65536\n", FirstSubID)
	}
	write := func(name string, text []byte) error { return os.WriteFile(filepath.Join(u.etc, name), text, 0o644) }
	for _, f := range []func() error{
		func() error { return os.Chmod(dir, 0o755) },
		func() error { return os.Chmod(filepath.Dir(dir), 0o755) }, // which package testing keeps to itself
		func() error { return os.Mkdir(u.Home, 0o700) },
		func() error { return os.Chown(u.Home, UserID, UserID) },
		func() error { return os.Mkdir(u.etc, 0o755) },
		func() error { return write("passwd", passwd) },
		func() error { return write("subuid", subIDs) },
		func() error { return write("subgid", subIDs) },
	} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// become is the script that becomes the user, in a mount namespace in which some files of /etc are others.
const become = `set -e
cd "$1" # whose name may have what separates options
mount -t overlay -o lowerdir=.:/etc overlay /etc
cd "$2"
shift 2
exec setpriv --reuid="$HCS_TEST_USER" --regid="$HCS_TEST_USER" --clear-groups --inh-caps=-all "$@"
`

// Command returns a command of the user's, in a session of its own as one that logs in anew has it, with his home as its
// directory and the variables on top of a bare environment. hcs and its programs are first in PATH.
func (u *User) Command(env []string, args ...string) *exec.Cmd {
	if u.etc != "" {
		args = append([]string{
			"unshare", "--mount", "--propagation=private", "sh", "-c", become, "become", u.etc, u.Home,
		}, args...)
	}
	path := []string{u.path, "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"}
	cmd := exec.Command(args[0], args[1:]...)
	if file, err := exec.LookPath(filepath.Join(u.path, args[0])); err == nil { // not in this process's PATH
		cmd.Path, cmd.Err = file, nil
	}
	cmd.Dir = u.Home
	cmd.Env = append([]string{
		"HOME=" + u.Home, "PATH=" + strings.Join(path, ":"), "TMPDIR=" + u.Home, fmt.Sprint("HCS_TEST_USER=", UserID),
		"XDG_RUNTIME_DIR=" + filepath.Join(u.Home, "run"),
	}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

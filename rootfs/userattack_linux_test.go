package rootfs_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/rootfs"
)

// byUser are the tests that an ordinary user has to pass too, and that root runs as one.
const byUser = "^(TestAttacksRootless|TestUnpackTreeAttacks|TestAttackByExistingTree|TestDirectoriesThroughReplacedLinks|" +
	"TestLinkToForbiddenDirectory|TestUnpackTreePreparedPlace|TestUnpackTreeRandom)$"

// TestAttacksByUser runs tests as a user who is nobody else on this machine, in a process of his own.
func TestAttacksByUser(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	home := t.TempDir()
	must(t, os.Chmod(filepath.Dir(home), 0o755)) // which package testing keeps to itself
	must(t, os.Chown(home, testenv.UserID, testenv.UserID))
	program, err := os.Open("/proc/self/exe") // in a directory that he may not enter
	must(t, err)
	defer func() { must(t, program.Close()) }()
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3", "-test.run="+byUser, "-test.v")
	cmd.ExtraFiles = []*os.File{program}
	cmd.Dir, cmd.Env = home, []string{"TMPDIR=" + home, "HOME=" + home, "HCS_TEST_IMAGES=100", "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: testenv.UserID, Gid: testenv.UserID}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	for name := range strings.SplitSeq(strings.Trim(byUser, "^()$"), "|") {
		if !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass", name)
		}
	}
}

// TestUnpackTreePreparedPlace unpacks where somebody has put things in the way: none is followed, changed or removed.
func TestUnpackTreePreparedPlace(t *testing.T) {
	t.Parallel()
	link := func(to string) func(string) error { return func(at string) error { return os.Symlink(to, at) } }
	write := func(at string) error { return os.WriteFile(at, []byte("x"), 0o600) }
	foreign := func(at string) error {
		if os.Geteuid() != 0 {
			return os.WriteFile(at, nil, 0o600) // he can make none
		}
		return errors.Join(os.Mkdir(at, 0o700), os.Symlink("../../canarydir", at+"/.lock"), os.Chown(at, testenv.UserID, testenv.UserID))
	}
	fifo := func(at string) error { return syscall.Mkfifo(at, 0o600) }
	for _, c := range []struct {
		what, name string
		make       func(at string) error
		class      error
	}{
		{"a link to a directory", "tree", link("../canarydir"), errdefs.ErrAlreadyExists},
		{"a dangling link", "tree", link("../canarydir/new"), errdefs.ErrAlreadyExists},
		{"a link to itself", "tree", link("tree"), errdefs.ErrAlreadyExists},
		{"a file", "tree", write, errdefs.ErrAlreadyExists},
		{"a FIFO", "tree", fifo, errdefs.ErrAlreadyExists},
		{"a link as workplace", ".hcs-unpack-tree", link("../canarydir"), errdefs.ErrFailedPrecondition},
		{"a dangling link as workplace", ".hcs-unpack-tree", link("../canarydir/new"), errdefs.ErrFailedPrecondition},
		{"a file as workplace", ".hcs-unpack-tree", write, errdefs.ErrFailedPrecondition},
		{"a FIFO as workplace", ".hcs-unpack-tree", fifo, errdefs.ErrFailedPrecondition},
		{"a link in the workplace", ".hcs-unpack-tree/tree", link("../../canarydir"), nil},
		{"a workplace for everybody", ".hcs-unpack-tree", func(at string) error {
			return errors.Join(os.Mkdir(at, 0o700), os.Chmod(at, 0o777), os.Symlink("../../canarydir", at+"/.lock"))
		}, errdefs.ErrFailedPrecondition},
		{"somebody else's workplace", ".hcs-unpack-tree", foreign, errdefs.ErrFailedPrecondition},
	} {
		cage := newCage(t)
		at := filepath.Join(filepath.Dir(cage.tree), c.name)
		must(t, os.Remove(cage.tree))
		must(t, os.MkdirAll(filepath.Dir(at), 0o700))
		must(t, c.make(at))
		before := cage.outside(t)
		_, err := rootfs.UnpackTree(t.Context(), cage.tree, blobsOf(tarOf(t, file("x", "evil"))), rootfs.TreeOptions{Rootless: true})
		after := cage.outside(t)
		if c.class == nil { // the workplace is the program's own to take away
			for _, lines := range []map[string]string{before, after} {
				delete(lines, "up")
				for name := range lines {
					if strings.HasPrefix(name, "up/.hcs-unpack-tree") {
						delete(lines, name)
					}
				}
			}
		}
		compare(t, after, before)
		if (c.class == nil) != (err == nil) || err != nil && !errors.Is(err, c.class) {
			t.Errorf("%s: %v, want %v", c.what, err, c.class)
		}
	}
}

package temporary_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/temporary"
	"github.com/hostcompute/hcs/internal/testenv"
)

// parentEnv has the test's program make a directory in the one that it names, and wait to be killed.
const parentEnv = "TEMPORARY_TEST_PARENT"

const prefix = ".test-"

func TestMain(m *testing.M) {
	if parent := os.Getenv(parentEnv); parent != "" {
		d, err := temporary.New(context.Background(), temporary.Config{Parent: parent, Prefix: prefix})
		if err == nil {
			err = os.MkdirAll(d.Path("a", "b"), 0o700)
		}
		if err == nil {
			err = os.Chmod(d.Path("a"), 0o500) // as an image may have it
		}
		if err != nil {
			panic(err)
		}
		_, _ = os.Stdout.WriteString("now\n")
		testenv.AwaitKill(d)
	}
	os.Exit(m.Run())
}

// TestKilled leaves alone what another process has, and removes it once that was killed.
func TestKilled(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	kill := child(t, parent)
	if alive := list(t, parent); len(alive) != 1 {
		t.Fatalf("the child has %v", alive)
	}
	use(t, parent)
	if alive := list(t, parent); len(alive) != 1 {
		t.Errorf("while the child lives there are %v", alive)
	}
	kill()
	if left := list(t, parent); len(left) != 1 {
		t.Errorf("the killed child leaves %v", left)
	}
	use(t, parent)
	if left := list(t, parent); len(left) > 0 {
		t.Errorf("the next call leaves %v", left)
	}
}

// TestNotOurs leaves alone what a killed call cannot have made.
func TestNotOurs(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	must(t, os.Mkdir(elsewhere, 0o700))
	must(t, os.Symlink(elsewhere, filepath.Join(parent, prefix+"link")))
	must(t, os.WriteFile(filepath.Join(parent, prefix+"file"), nil, 0o600))
	open := filepath.Join(parent, prefix+"open")
	must(t, os.Mkdir(open, 0o755))
	must(t, os.Chmod(open, 0o755))
	must(t, os.Mkdir(filepath.Join(parent, ".other-kind"), 0o700))
	use(t, parent)
	if left := list(t, parent); len(left) != 4 {
		t.Errorf("there are %v", left)
	}
	if _, err := os.Lstat(elsewhere); err != nil {
		t.Error(err)
	}
}

// TestRelease keeps what cannot be released, and removes it when it can.
func TestRelease(t *testing.T) {
	t.Parallel()
	parent, fault := t.TempDir(), errors.New("still mounted")
	busy := true
	c := temporary.Config{Parent: parent, Prefix: prefix, Release: func(string) error {
		if busy {
			return fault
		}
		return nil
	}}
	d, err := temporary.New(t.Context(), c)
	must(t, err)
	if err := d.Remove(); !errors.Is(err, fault) || len(list(t, parent)) != 1 {
		t.Errorf("removed: %v", err)
	}
	busy = false
	d, err = temporary.New(t.Context(), c)
	must(t, err)
	must(t, d.Remove())
	if left := list(t, parent); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	d, err := temporary.New(t.Context(), temporary.Config{Parent: parent, Prefix: prefix})
	must(t, err)
	must(t, os.WriteFile(d.Path("f"), []byte("new"), 0o600))
	name := filepath.Join(parent, "name")
	must(t, os.WriteFile(name, []byte("old"), 0o600))
	if err := d.Publish("f", name); !errdefs.IsAlreadyExists(err) {
		t.Errorf("over another file: %v", err)
	}
	must(t, os.Remove(name))
	must(t, d.Publish("f", name))
	must(t, d.Remove())
	if b, err := os.ReadFile(name); err != nil || string(b) != "new" {
		t.Errorf("the file has %q, %v", b, err)
	}
	if left := list(t, parent); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// child starts a process that has a directory in parent. It is to be killed.
func child(t *testing.T, parent string) (kill func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), parentEnv+"="+parent)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if _, err := io.ReadFull(out, make([]byte, len("now\n"))); err != nil {
		t.Error(err)
	}
	return func() {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	}
}

// use makes a directory and removes it.
func use(t *testing.T, parent string) {
	t.Helper()
	d, err := temporary.New(t.Context(), temporary.Config{Parent: parent, Prefix: prefix})
	must(t, err)
	must(t, d.Remove())
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// programs is the directory that Main built the programs in.
var programs string

// Main is for the TestMain of packages whose tests start hcs, hcs-shim or hcs-agent: it builds them from this source and
// runs the tests with them first in PATH. Where those that need root are not to run, nothing is built.
func Main(m *testing.M) int {
	if root() != nil {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "hcs-test-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { // for ordinary users
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	module, err := moduleRoot()
	if err == nil {
		err = buildPrograms(module, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the programs to test with:", err)
		return 1
	}
	programs = dir
	if err := os.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// RaceVariable is the environment variable that has hcs-shim, which the tests start, look for data races, too. hcs-agent
// cannot: what finds them is a library of the host's, and the program runs in containers.
const RaceVariable = "HCS_TEST_RACE"

func buildPrograms(module, dir string) error {
	build := func(cgo string, args ...string) error {
		c := exec.Command("go", append([]string{"build", "-trimpath", "-o", dir}, args...)...)
		c.Dir, c.Stderr = module, os.Stderr
		c.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		return c.Run()
	}
	err := build("0", "-ldflags", "-s -w", "./cmd/...")
	if err == nil && os.Getenv(RaceVariable) != "" {
		err = build("1", "-race", "./cmd/hcs-shim")
	}
	return err
}

// Programs returns the directory of hcs, hcs-shim and hcs-agent, built from this source. The package's TestMain is Main.
func Programs(t testing.TB) string {
	t.Helper()
	NeedRoot(t)
	if programs == "" {
		t.Fatal("testenv.Programs without testenv.Main in TestMain")
	}
	return programs
}

// moduleRoot walks up from the package directory, where `go test` runs tests, to the directory of go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the working directory: %w", os.ErrNotExist)
		}
		dir = parent
	}
}

// Package testenv states what a test needs from the machine, and skips the test where that is missing.
//
// A skip is only honest where nobody promised that the test can run. `make test`, as root, sets the machine up and then
// sets HCS_TEST_PRIVILEGED=1, which is that promise: under it a missing requirement fails the test. Without it a test whose
// requirements are met runs all the same.
//
// Features are probed by using them, never derived from a kernel version.
package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

const (
	// Privileged is the environment variable that promises a machine with everything the tests need, and root.
	Privileged = "HCS_TEST_PRIVILEGED"
	// DebianTar is the environment variable with the path of the Debian layer.
	DebianTar = "HCS_TEST_DEBIAN_TAR"
	// BusyboxTar is the environment variable with the path of the busybox layer.
	BusyboxTar = "HCS_TEST_BUSYBOX_TAR"
)

// Patience is how long tests wait for what is sure to come, and calls for stuck what has not come by then. Only a broken program
// takes it, on a machine whose processors others take ten times as long as usual.
const Patience = time.Minute

// Endurance is the environment variable that has tests of scale and endurance take as long as they should: with the value
// full, else they are samples of themselves. `make check` sets it.
const Endurance = "HCS_TEST_ENDURANCE"

// Enduring returns the size of a test of scale or endurance: the first for every day, the second for the whole of it.
func Enduring[T any](sample, full T) T {
	if os.Getenv(Endurance) == "full" {
		return full
	}
	return sample
}

// NeedRoot skips the test unless it runs as root on Linux.
func NeedRoot(t testing.TB) {
	t.Helper()
	need(t, "root on Linux", root())
}

// NeedCommand skips the test unless all the commands are found in PATH, or in the directories of root's PATH, which
// other users may lack. It returns their paths in order.
func NeedCommand(t testing.TB, names ...string) []string {
	t.Helper()
	var paths []string
	for _, name := range names {
		path, err := lookPath(name)
		need(t, "the command "+name, err)
		paths = append(paths, path)
	}
	return paths
}

// NeedKernel skips the test unless the kernel lets this process use all the features.
func NeedKernel(t testing.TB, features ...Feature) {
	t.Helper()
	for _, f := range features {
		need(t, "the kernel's "+string(f), probe(f))
	}
}

// DebianLayer returns the path of an uncompressed layer with a minimal Debian, as scripts/images.sh makes it.
func DebianLayer(t testing.TB) string {
	t.Helper()
	return input(t, DebianTar, "debian/layer.tar")
}

// BusyboxLayer returns the path of an uncompressed layer with a static busybox and its links, as scripts/images.sh makes
// it.
func BusyboxLayer(t testing.TB) string {
	t.Helper()
	return input(t, BusyboxTar, "busybox/layer.tar")
}

// Busybox returns the path of a statically linked busybox.
func Busybox(t testing.TB) string {
	t.Helper()
	return NeedCommand(t, "busybox")[0]
}

// Image returns the directory of an OCI layout with the image name ("busybox" or "debian", tag "latest"), as
// scripts/images.sh makes it.
func Image(t testing.TB, name string) string {
	t.Helper()
	return input(t, "", "images/"+name)
}

// need is the only place that skips.
func need(t testing.TB, what string, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv(Privileged) == "1":
		t.Fatalf("%s=1 promises %s: %v", Privileged, what, err)
	default:
		t.Skipf("needs %s: %v", what, err)
	}
}

func root() error {
	if runtime.GOOS != "linux" {
		return errors.New("this is " + runtime.GOOS)
	}
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("running as uid %d", uid)
	}
	return nil
}

func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if err == nil {
			break
		}
		if p, e := exec.LookPath(filepath.Join(dir, name)); e == nil {
			path, err = p, nil
		}
	}
	return path, err
}

// input finds a file that scripts/images.sh made: where the variable says, else in the repository's cache.
func input(t testing.TB, variable, cached string) string {
	t.Helper()
	path := ""
	if variable != "" {
		path = os.Getenv(variable)
	}
	var err error
	if path == "" {
		path, err = cache(cached)
	}
	if err == nil {
		_, err = os.Stat(path)
	}
	need(t, "test input made by scripts/images.sh", err)
	return path
}

// cache returns the path of an input in the repository's cache.
func cache(name string) (string, error) {
	module, err := moduleRoot()
	return filepath.Join(module, ".cache", filepath.FromSlash(name)), err
}

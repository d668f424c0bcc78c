package cli_test

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostcompute/hcs/internal/testenv"
)

// TestCopyKilled kills a copy into a container that does not run: what it had mounted and locked is free.
func TestCopyKilled(t *testing.T) {
	h := newHost(t)
	h.must("create", "--name", "c", "oci:"+testenv.Image(t, "busybox"), "sleep", "1000")
	cmd := h.hcs("cp", "-", "c:/tmp")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	const half = 1 << 20
	w := tar.NewWriter(in)
	if err := w.WriteHeader(&tar.Header{Name: "big", Mode: 0o644, Size: 2 * half}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, half)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(testenv.Patience); ; time.Sleep(time.Millisecond) {
		if found, _ := filepath.Glob(filepath.Join(h.dir, "root", "scratch", "*", "upper", "tmp", "big")); len(found) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the copy has not begun")
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	h.must("start", "c")
	if got := h.must("exec", "c", "ls", "/tmp"); got != "big\n" {
		t.Errorf("got %q", got)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), h.dir) {
		t.Errorf("mounts are left: %v", err)
	}
}

package image_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hostcompute/hcs/image"
)

// TestKilledWhileWriting kills a program that writes an archive. Nothing has the archive's name then, and the next who writes
// one there removes what was left, but not what somebody else is writing.
func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	l.index(tagged(l.image(host(), 1000, 300_000), "x"))
	src, img := open(t, l.ref("x"))
	dir := t.TempDir()
	begin := func(name string) *exec.Cmd {
		t.Helper()
		cmd := reexec(t, childSource+"="+l.dir, childTarget+"="+filepath.Join(dir, name))
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		_, err = io.ReadFull(out, make([]byte, 8))
		must(t, err)
		return cmd
	}
	kill := func(cmd *exec.Cmd) {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}
	write := func(left int) {
		t.Helper()
		must(t, image.Copy(t.Context(), src, img, parse(t, "docker-archive:"+dir+"/written.tar:x")))
		names, err := filepath.Glob(dir + "/.*")
		entries, rerr := os.ReadDir(dir)
		if err != nil || rerr != nil || len(names) != left || len(entries) != left+1 {
			t.Fatalf("%q, %v, %v; want %d left", names, err, rerr, left)
		}
	}
	dead, alive := begin("dead.tar"), begin("alive.tar")
	kill(dead)
	write(1)
	kill(alive)
	write(0)
	if _, again := open(t, parse(t, "docker-archive:"+dir+"/written.tar")); !slices.Equal(again.DiffIDs(), img.DiffIDs()) {
		t.Errorf("got %v, want %v", again.DiffIDs(), img.DiffIDs())
	}
}

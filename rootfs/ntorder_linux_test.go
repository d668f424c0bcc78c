package rootfs_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/rootfs"
)

// TestNTOrder stores layers whose few names come again and again, as files, links, directories and whiteouts, and through
// symbolic links. The tree has to be what Apply makes of the same stream, which does everything in order.
func TestNTOrder(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	const rounds = 300
	alike := 0
	for seed := range uint64(rounds) {
		stream := tarOf(t, twistedLayer(rand.New(rand.NewPCG(seed, 1)))...)
		top := t.TempDir()
		want := filepath.Join(top, "want")
		must(t, os.Mkdir(want, 0o755))
		if _, err := apply(t, want, bytes.NewReader(stream), rootfs.ApplyOptions{Format: rootfs.OverlayUpper}); err != nil {
			continue // such as a link to nothing, which a parent of a Windows layer may have
		}
		if _, err := importNT(t, filepath.Join(top, "got"), nil, stream); err != nil {
			if readsNT(stream) == nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			continue
		}
		alike++
		compare(t, treeOf(t, filepath.Join(top, "got", "Files")), treeOf(t, filepath.Join(want, "Files")))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		must(t, os.RemoveAll(top))
	}
	if alike < rounds/4 {
		t.Errorf("only %d of %d layers could be stored", alike, rounds)
	}
}

// treeOf lists a tree without Windows' metadata.
func treeOf(t *testing.T, dir string) map[string]string {
	list := listing(t, dir, view{marks: true})
	maps.DeleteFunc(list, func(name, _ string) bool { return name == "." })
	for name, line := range list {
		list[name] = ntAttribute.ReplaceAllString(line, "")
	}
	return list
}

var ntAttribute = regexp.MustCompile(` trusted\.hcs\.nt="([^"\\]|\\.)*"`)

func twistedLayer(r *rand.Rand) []tar.Header {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	base := func() string { return pick("a", "b", "c", "d") }
	name := func() string {
		return "Files/" + strings.Repeat(pick("", "d/", "e/", "l/"), r.IntN(2)) + pick("", "", "d/") + base()
	}
	headers := []tar.Header{dir("Files"), dir("Files/d"), dir("Files/e"), dir("Hives")}
	var files []string
	for i := range 3 + r.IntN(20) {
		switch r.IntN(12) {
		case 3, 4, 5:
			if n := name(); len(files) > 0 {
				headers = append(headers, hardlink(n, pick(files...)))
			}
		case 0:
			headers = append(headers, dir(name()))
		case 1:
			headers = append(headers, symlink("Files/"+pick("l", "e/l", "a"), pick("d", "e", "nowhere", "a")))
		case 2:
			headers = append(headers, wh(name()))
		case 6:
			headers = append(headers, file(name(), strings.Repeat("large", 20000+i)))
		case 7:
			headers = append(headers, opq("Files/"+pick("d", "e")))
		default:
			files = append(files, name())
			headers = append(headers, file(files[len(files)-1], fmt.Sprint("content ", i)))
		}
	}
	return headers
}

// TestReusedInodes has directories with whiteouts, and opaque ones, be removed again and again, on a file system that gives
// their inodes to the next ones.
func TestReusedInodes(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.LoopDevices)
	top := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: top, Settles: true})
	img, dst := filepath.Join(top, "img"), filepath.Join(top, "mnt")
	must(t, os.Mkdir(dst, 0o700))
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	must(t, os.WriteFile(img, nil, 0o600))
	must(t, os.Truncate(img, 16<<20))
	// With a journal, as without one the kernel leaves an inode alone for a minute.
	run(testenv.NeedCommand(t, "mkfs.ext4")[0], "-q", "-N", "2000", img)
	run("mount", "-o", "loop", img, dst)
	t.Cleanup(func() { run("umount", dst) })
	const rounds = 200
	var headers []tar.Header
	for i := range rounds {
		fresh := fmt.Sprintf("n%d", i)
		headers = append(headers, dir("d"), wh("d/x"), dir("o"), opq("o"), file("d", ""), file("o", ""), dir(fresh), wh(fresh+"/x"))
	}
	must(t, os.Mkdir(filepath.Join(dst, "tree"), 0o755))
	_, err := apply(t, filepath.Join(dst, "tree"), bytes.NewReader(tarOf(t, headers...)), rootfs.ApplyOptions{Format: rootfs.OverlayUpper})
	must(t, err)
	for i := range rounds {
		name := filepath.Join(dst, "tree", fmt.Sprintf("n%d", i))
		if _, err := syscall.Getxattr(name, "trusted.overlay.origin", nil); err != nil {
			t.Errorf("%s is not marked as one with whiteouts: %v", name, err)
		}
		if _, err := os.Lstat(filepath.Join(name, "x")); err != nil {
			t.Errorf("the whiteout was taken for one below an opaque directory: %v", err)
		}
	}
}

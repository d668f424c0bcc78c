package rootfs_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/rootfs"
)

// capNetRaw is a security.capability of version 2 that permits cap_net_raw: see capabilities(7).
const capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// aclValue is system.posix_acl_access: user 1000 may read, the mask lets him, and the owner's, group's and others' bits.
const aclValue = "\x02\x00\x00\x00" +
	"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" +
	"\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"

// nastyTree makes one of everything that a file system can hold and a tar file can tell.
func nastyTree(t testing.TB, dir string) {
	t.Helper()
	root, err := inroot.Open(dir)
	must(t, err)
	defer func() { must(t, root.Close()) }()
	create := func(name, content string, uid, gid, mode uint32) *inroot.File {
		f, err := root.Create(name, 0o600)
		must(t, err)
		_, err = f.Write([]byte(content))
		must(t, err)
		must(t, f.Chown(uid, gid))
		must(t, f.Chmod(mode))
		return f
	}
	for i, mode := range []uint32{0o644, 0o4755, 0o2755, 0o6711, 0o1777, 0o000, 0o777, 0o400} {
		f := create(fmt.Sprintf("mode%o", mode), strings.Repeat("x", i), uint32(i*1000), uint32(i*77), mode)
		must(t, f.SetTimes(time.Unix(1, 1), time.Unix(int64(i)*12345678, int64(i)*111111111)))
		must(t, f.Close())
		name := fmt.Sprintf("dir%o", mode)
		must(t, root.Mkdir(name, 0o700))
		must(t, create(name+"/f", "y", 0, 0, 0o644).Close())
		must(t, root.Chown(name, uint32(i), uint32(i+8)))
		must(t, root.Chmod(name, mode))
	}
	f := create("xattrs", "x", 7, 7, 0o4755)
	for attr, value := range map[string]string{
		"user.a": "\x00\xff=\n", "trusted.b": "c", "security.capability": capNetRaw, "system.posix_acl_access": aclValue,
	} {
		must(t, f.SetXattr(attr, value))
	}
	must(t, f.Close())
	d, err := root.OpenDir("dir777")
	must(t, err)
	must(t, d.Self().SetXattr("user.on.dir", "v"))
	must(t, d.Self().SetXattr("system.posix_acl_default", aclValue))
	must(t, d.Close())

	sparse := create("sparse", "", 0, 0, 0o644)
	for _, at := range []int64{1 << 20, 5 << 20, 5<<20 + 8192} {
		_, err := sparse.WriteAt([]byte(strings.Repeat("data", 1024)), at)
		must(t, err)
	}
	must(t, sparse.Truncate(9<<20))
	must(t, sparse.Close())
	hole := create("hole", "", 0, 0, 0o644)
	must(t, hole.Truncate(3<<20))
	must(t, hole.Close())
	must(t, create("large", strings.Repeat("0123456789abcdef", 40000), 1, 2, 0o640).Close())

	must(t, root.Symlink("/etc/passwd", "abs"))
	must(t, root.Symlink(strings.Repeat("long/", 60), "longlink"))
	must(t, root.Symlink("xattrs", "rel"))
	must(t, root.Chown("rel", 33, 44))
	must(t, root.Link("xattrs", "hard1"))
	must(t, root.Link("rel", "symlink-too"))
	must(t, root.Link("mode4755", "dir777/hard2"))
	must(t, root.Mknod("fifo", sys.ModeFIFO, 0, 0))
	must(t, root.Mknod("null", sys.ModeChar, 1, 3))
	must(t, root.Mknod("sda", sys.ModeBlock, 8, 0))
	must(t, root.Mknod("big", sys.ModeBlock, 300, 70000))
	must(t, root.Chmod("null", 0o666))

	deep, err := root.MkdirAll(strings.Repeat("deep/", 40), 0o755)
	must(t, err)
	must(t, deep.Symlink("x", "end"))
	must(t, deep.Close())
	for _, name := range []string{"new\nline", "\xff\xfe", "späce und ü", `back\slash`, "-rf", strings.Repeat("n", 255)} {
		must(t, create(name, name, 0, 0, 0o644).Close())
	}
	must(t, root.Mkdir("many", 0o755))
	for i := range 500 {
		must(t, create(fmt.Sprintf("many/%d", i), strings.Repeat("z", i*i), uint32(i), 0, uint32(i)).Close())
	}
}

// tarCommand runs GNU tar.
func tarCommand(t testing.TB, args ...string) {
	t.Helper()
	bin := testenv.NeedCommand(t, "tar")[0]
	cmd := exec.Command(bin, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

// likeTar unpacks the layer with GNU tar and in both formats, and compares.
func likeTar(t *testing.T, blob string, v view) {
	t.Helper()
	want := t.TempDir()
	tarCommand(t, "-C", want, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", blob)
	must(t, os.Chmod(want, 0o755)) // tar leaves what the test made where the layer has no entry for it
	wantTree := listing(t, want, v)
	if len(wantTree) < 100 {
		t.Errorf("there are %d objects only", len(wantTree))
	}
	for _, format := range []rootfs.Format{rootfs.Directory, rootfs.OverlayUpper} {
		got := t.TempDir()
		must(t, os.Chmod(got, 0o755))
		stream, err := os.Open(blob)
		must(t, err)
		_, err = apply(t, got, stream, rootfs.ApplyOptions{Format: format})
		must(t, err)
		must(t, stream.Close())
		compare(t, listing(t, got, v), wantTree)
	}
}

func TestLikeGNUTar(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	source := t.TempDir()
	nastyTree(t, source)
	blob := filepath.Join(t.TempDir(), "layer.tar")
	for _, format := range []string{"pax", "gnu"} {
		args := []string{"-C", source, "--format", format, "--sparse", "--sort=name", "--numeric-owner", "-cf", blob, "."}
		if format == "pax" {
			args = append([]string{"--xattrs", "--xattrs-include=*"}, args...)
		}
		tarCommand(t, args...)
		likeTar(t, blob, view{times: true, holes: true})
	}
}

// TestLikeGNUTarUmask makes sure that modes do not come out of the umask: another process has another one.
func TestLikeGNUTarUmask(t *testing.T) {
	testenv.NeedRoot(t)
	source := t.TempDir()
	nastyTree(t, source)
	blob := filepath.Join(t.TempDir(), "layer.tar")
	tarCommand(t, "-C", source, "--format", "pax", "--xattrs", "--xattrs-include=*", "-cf", blob, ".")
	for _, mask := range []int{0, 0o77, 0o777} {
		func() {
			defer syscall.Umask(syscall.Umask(mask))
			stream, err := os.Open(blob)
			must(t, err)
			got := t.TempDir()
			_, err = apply(t, got, stream, rootfs.ApplyOptions{Format: rootfs.OverlayUpper})
			must(t, err)
			must(t, stream.Close())
			compare(t, listing(t, got, view{}), listing(t, source, view{}))
		}()
	}
}

func TestDebianLikeGNUTar(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	likeTar(t, testenv.DebianLayer(t), view{times: true})
}

// manyFiles makes a layer like Debian's: files of all sizes, mostly small, in directories, owned by root.
func manyFiles(t testing.TB, n int) string {
	t.Helper()
	source := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 1<<20)
	for i := range text {
		text[i] = "etaoin shrdlu\n"[rng.IntN(14)]
	}
	for i := range n {
		dir := filepath.Join(source, fmt.Sprintf("usr/%d/%d", i/400, i/20))
		if i%20 == 0 {
			must(t, os.MkdirAll(dir, 0o755))
		}
		size := int(3000 * rng.ExpFloat64())
		if i%100 == 0 {
			size = 200 << 10
		}
		start := rng.IntN(len(text) - size)
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint("file", i)), text[start:start+size], 0o644))
	}
	blob := filepath.Join(t.TempDir(), "layer.tar")
	tarCommand(t, "-C", source, "--sort=name", "-cf", blob, ".")
	return blob
}

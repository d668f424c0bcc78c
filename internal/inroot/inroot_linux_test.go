package inroot_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
)

// newTree makes a directory with an outside file "secret" and, in it, the root "root".
func newTree(t testing.TB) (dir string, root *inroot.Root) {
	t.Helper()
	dir = t.TempDir()
	write(t, filepath.Join(dir, "secret"), "outside")
	base := filepath.Join(dir, "root")
	for _, d := range []string{"etc", "a/b/c", "locked"} {
		must(t, os.MkdirAll(filepath.Join(base, d), 0o755))
	}
	write(t, filepath.Join(base, "etc/passwd"), "inside")
	write(t, filepath.Join(base, "a/b/c/file"), "deep")
	links := map[string]string{
		"abs":        "/etc/passwd",
		"rel":        "etc/passwd",
		"up":         "../../../../etc/passwd",
		"climb":      "../secret",
		"absdir":     "/a/b",
		"a/b/back":   "../../etc",
		"a/b/slash":  "/etc/",
		"dangling":   "nowhere",
		"danglingup": "../../new",
		"loop":       "loop",
		"dot":        "etc/.",
		"tofifo":     "fifo",
		"outside":    dir + "/secret",
	}
	for i := range 41 {
		target := fmt.Sprintf("chain%d", i)
		if i == 0 {
			target = "etc/passwd"
		}
		links[fmt.Sprintf("chain%d", i+1)] = target // chainN leads through N links
	}
	for name, target := range links {
		must(t, os.Symlink(target, filepath.Join(base, name)))
	}
	must(t, syscall.Mkfifo(filepath.Join(base, "fifo"), 0o600))
	root, err := inroot.Open(base)
	must(t, err)
	t.Cleanup(func() { must(t, root.Close()) })
	return dir, root
}

func TestOpen(t *testing.T) {
	t.Parallel()
	_, root := newTree(t)
	invalid := errdefs.ErrInvalidArgument
	for _, c := range []struct {
		name string
		want string
		err  error
	}{
		{name: "etc/passwd", want: "inside"},
		{name: "/etc/passwd", want: "inside"},
		{name: "//etc//./passwd", want: "inside"},
		{name: "../etc/passwd", want: "inside"},
		{name: "/../../etc/../etc/passwd", want: "inside"},
		{name: "a/../../etc/passwd", want: "inside"},
		{name: "abs", want: "inside"},
		{name: "rel", want: "inside"},
		{name: "up", want: "inside"},
		{name: "absdir/c/file", want: "deep"},
		{name: "absdir/../b/c/file", want: "deep"},
		{name: "absdir/back/passwd", want: "inside"},
		{name: "a/b/slash/passwd", want: "inside"},
		{name: "dot/passwd", want: "inside"},
		{name: "chain40", want: "inside"},
		{name: strings.Repeat("a/../", 2000) + "etc/passwd", want: "inside"}, // longer than PATH_MAX
		{name: "chain41", err: syscall.ELOOP},
		{name: "loop", err: syscall.ELOOP},
		{name: "loop/x", err: syscall.ELOOP},
		{name: "climb", err: fs.ErrNotExist},
		{name: "outside", err: fs.ErrNotExist},
		{name: "../secret", err: fs.ErrNotExist},
		{name: "dangling", err: fs.ErrNotExist},
		{name: "missing/x", err: fs.ErrNotExist},
		{name: "missing/../etc/passwd", err: fs.ErrNotExist},
		{name: "", err: fs.ErrNotExist},
		{name: "etc/passwd/", err: syscall.ENOTDIR},
		{name: "etc/passwd/.", err: syscall.ENOTDIR},
		{name: "etc/passwd/..", err: syscall.ENOTDIR},
		{name: "etc/passwd/x", err: syscall.ENOTDIR},
		{name: "rel/", err: syscall.ENOTDIR},
		{name: strings.Repeat("x", 256), err: syscall.ENAMETOOLONG},
		{name: "etc\x00passwd", err: syscall.EINVAL},
		{name: "etc", err: invalid},
		{name: "etc/", err: invalid},
		{name: ".", err: invalid},
		{name: "..", err: invalid},
		{name: "/", err: invalid},
		{name: "fifo", err: invalid},
		{name: "tofifo", err: invalid},
	} {
		got, err := root.ReadFile(c.name, 100)
		short := c.name[:min(len(c.name), 40)]
		if string(got) != c.want || !errors.Is(err, c.err) {
			t.Errorf("ReadFile(%q) = %q, %v; want %q, %v", short, got, err, c.want, c.err)
		}
	}
}

func TestOpenRefusesSymlinkAsRoot(t *testing.T) {
	t.Parallel()
	dir, _ := newTree(t)
	link := filepath.Join(dir, "link")
	must(t, os.Symlink("root", link))
	for _, name := range []string{link, link + "/", filepath.Join(dir, "secret"), filepath.Join(dir, "missing")} {
		if root, err := inroot.Open(name); err == nil {
			t.Errorf("Open(%q) works", name)
			_ = root.Close()
		}
	}
}

func TestReadFileLimit(t *testing.T) {
	t.Parallel()
	_, root := newTree(t)
	if got, err := root.ReadFile("etc/passwd", 6); string(got) != "inside" || err != nil {
		t.Errorf("6 bytes with limit 6: %q, %v", got, err)
	}
	if _, err := root.ReadFile("etc/passwd", 5); !errors.Is(err, errdefs.ErrResourceExhausted) {
		t.Errorf("6 bytes with limit 5: %v", err)
	}
}

func TestMagicLinksAreRefused(t *testing.T) {
	t.Parallel()
	root, err := inroot.Open("/proc")
	must(t, err)
	defer func() { must(t, root.Close()) }()
	for _, name := range []string{"self/exe", "self/root/etc/passwd", "self/cwd/inroot.go", "thread-self/fd/0"} {
		if file, err := root.Open(name); !errors.Is(err, syscall.ELOOP) {
			t.Errorf("Open(%q) = %v, %v; want ELOOP", name, file, err)
		}
	}
}

func TestLastComponentIsNotFollowed(t *testing.T) {
	t.Parallel()
	dir, root := newTree(t)
	st, err := root.Lstat("abs")
	if err != nil || !st.IsSymlink() {
		t.Errorf("Lstat(abs) = %v, %v; want a symbolic link", st, err)
	}
	st, err = root.Stat("abs")
	if err != nil || !st.IsRegular() {
		t.Errorf("Stat(abs) = %v, %v; want a file", st, err)
	}
	must(t, root.Remove("abs"))
	must(t, root.Rename("rel", "renamed"))
	must(t, root.Link("up", "linked"))
	must(t, root.Chown("up", uint32(os.Geteuid()), uint32(os.Getegid())))
	if target, err := root.Readlink("linked"); target != "../../../../etc/passwd" {
		t.Errorf("hard link to a symbolic link leads to %q, %v", target, err)
	}
	if err := root.Chmod("up", 0o777); err == nil {
		t.Error("Chmod of a symbolic link works")
	}
	if f, err := root.Create("dangling", 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create of a dangling symbolic link: %v, %v", f, err)
	}
	if got, err := root.ReadFile("etc/passwd", 10); string(got) != "inside" {
		t.Errorf("a link's target changed: %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "root/nowhere")); err == nil {
		t.Error("Create went through a dangling symbolic link")
	}
	for _, name := range []string{".", "..", "/", "etc/..", "etc/.", ""} {
		if _, err := root.Lstat(name); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("Lstat(%q): %v; want an invalid argument", name, err)
		}
	}
}

func TestMkdirAll(t *testing.T) {
	t.Parallel()
	dir, root := newTree(t)
	for _, c := range []struct {
		name, made string
		err        error
	}{
		{name: "x/y/z", made: "x/y/z"},
		{name: "x/y/z", made: "x/y/z"},
		{name: "/absdir/new/er", made: "a/b/new/er"},
		{name: "danglingup/sub", made: "new/sub"},
		{name: "../../over/the/top", made: "over/the/top"},
		{name: ".", made: "."},
		{name: "etc/passwd", err: syscall.ENOTDIR},
		{name: "etc/passwd/x", err: syscall.ENOTDIR},
		{name: "fifo/x", err: syscall.ENOTDIR},
		{name: "loop/x", err: syscall.ELOOP},
	} {
		d, err := root.MkdirAll(c.name, 0o755)
		if !errors.Is(err, c.err) {
			t.Errorf("MkdirAll(%q): %v; want %v", c.name, err, c.err)
		}
		if err != nil {
			continue
		}
		must(t, d.Close())
		if info, err := os.Lstat(filepath.Join(dir, "root", c.made)); err != nil || !info.IsDir() {
			t.Errorf("MkdirAll(%q) did not make %q: %v", c.name, c.made, err)
		}
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) != 2 {
		t.Errorf("outside of the root there is %q", left)
	}
}

func TestDirTakesNamesOnly(t *testing.T) {
	t.Parallel()
	_, root := newTree(t)
	d, err := root.OpenDir("a")
	must(t, err)
	defer func() { must(t, d.Close()) }()
	for _, name := range []string{"../etc", "b/c", "/etc", "..", ".", ""} {
		for op, err := range map[string]error{
			"Remove": d.Remove(name), "RemoveAll": d.RemoveAll(name), "Mkdir": d.Mkdir(name, 0o700),
			"Symlink": d.Symlink("x", name), "Chmod": d.Chmod(name, 0), "Link": d.Link("b", d, name),
			"Link from": d.Link(name, d, "x"), "Rename": d.Rename("b", d, name), "Mknod": d.Mknod(name, sys.ModeFIFO, 0, 0),
		} {
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%s(%q): %v; want an invalid argument", op, name, err)
			}
		}
	}
}

func TestFileMetadata(t *testing.T) {
	t.Parallel()
	dir, root := newTree(t)
	f, err := root.Create("new", 0o600)
	must(t, err)
	_, err = f.Write([]byte("one"))
	must(t, err)
	_, err = f.WriteAt([]byte("two"), 1<<20)
	must(t, err)
	must(t, f.Truncate(2<<20))
	must(t, f.Chmod(0o4711))
	must(t, f.SetXattr("user.a", "\x00b\xff"))
	attrs, err := f.Xattrs()
	if err != nil || attrs["user.a"] != "\x00b\xff" {
		t.Errorf("attributes are %q, %v", attrs, err)
	}
	must(t, f.RemoveXattr("user.a"))
	if _, err := f.Xattr("user.a"); !errors.Is(err, sys.ErrNoXattr) {
		t.Errorf("removed attribute: %v", err)
	}
	must(t, f.Close())
	info, err := os.Stat(filepath.Join(dir, "root/new"))
	must(t, err)
	if info.Size() != 2<<20 || info.Mode() != 0o711|fs.ModeSetuid {
		t.Errorf("file is %v of %d bytes", info.Mode(), info.Size())
	}
}

func TestRemoveAll(t *testing.T) {
	t.Parallel()
	dir, root := newTree(t)
	must(t, root.RemoveAll("missing"))
	must(t, root.RemoveAll("missing/x"))
	must(t, root.RemoveAll("absdir")) // the link, not the directory
	must(t, root.RemoveAll("absdir"))
	must(t, os.Symlink(dir, filepath.Join(dir, "root/a/b/out")))
	must(t, os.Chmod(filepath.Join(dir, "root/a/b/c"), 0))
	must(t, root.RemoveAll("a"))
	if _, err := root.Lstat("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a is still there: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "secret")); string(got) != "outside" {
		t.Errorf("the file outside is %q, %v", got, err)
	}
}

// TestRemoveAllDeep removes a tree that is deeper than there are descriptors, and than PATH_MAX.
func TestRemoveAllDeep(t *testing.T) {
	t.Parallel()
	_, root := newTree(t)
	must(t, root.Mkdir("deep", 0o755))
	d, err := root.OpenDir("deep")
	must(t, err)
	for range 3000 {
		must(t, d.Mkdir("dir", 0o755))
		must(t, d.Symlink("x", ".removed-1"))
		sub, err := d.OpenDir("dir")
		must(t, err)
		must(t, d.Close())
		d = sub
	}
	must(t, d.Close())
	must(t, root.RemoveAll("deep"))
	if _, err := root.Lstat("deep"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deep is still there: %v", err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	_, root := newTree(t)
	want := []string{}
	must(t, root.Mkdir("many", 0o755))
	d, err := root.OpenDir("many")
	must(t, err)
	defer func() { must(t, d.Close()) }()
	for i := range 3000 {
		name := fmt.Sprintf("%d-%s", i, strings.Repeat("\n\xff", i%100))
		want = append(want, name)
		must(t, d.Symlink("x", name))
	}
	slices.Sort(want)
	for range 2 { // reading does not wear the directory out
		if got, err := d.Names(); err != nil || !slices.Equal(got, want) {
			t.Errorf("Names = %d names, %v; want %d", len(got), err, len(want))
		}
	}
}

// TestSwap resolves names while another goroutine swaps a directory for a symbolic link that leads out.
func TestSwap(t *testing.T) {
	t.Parallel()
	dir, root := newTree(t)
	base := filepath.Join(dir, "root")
	must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
	write(t, filepath.Join(dir, "etc/passwd"), "outside")
	must(t, os.Symlink(dir+"/etc", filepath.Join(base, "evil")))
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			default:
				_ = os.Rename(filepath.Join(base, "etc"), filepath.Join(base, "etc2"))
				_ = os.Rename(filepath.Join(base, "evil"), filepath.Join(base, "etc"))
				_ = os.Rename(filepath.Join(base, "etc"), filepath.Join(base, "evil"))
				_ = os.Rename(filepath.Join(base, "etc2"), filepath.Join(base, "etc"))
			}
		}
	}()
	inside := 0
	for range 20000 {
		got, err := root.ReadFile("etc/passwd", 100)
		switch {
		case string(got) == "inside":
			inside++
		case err == nil:
			t.Fatalf("read %q", got)
		}
	}
	close(done)
	<-stopped
	if inside == 0 {
		t.Error("no name was resolved while the directory was in place")
	}
}

func FuzzResolve(f *testing.F) {
	for _, s := range []string{"etc/passwd", "../x", "a/b/back/../x", "/abs", "chain41/..", "dot/", "up\x00"} {
		f.Add(s, "../..")
	}
	dir, root := newTree(f)
	f.Fuzz(func(t *testing.T, name, target string) {
		_ = root.Remove("a/b/fuzz")
		_ = root.Symlink(target, "a/b/fuzz")
		for _, n := range []string{name, "a/b/fuzz/" + name, name + "/a/b/fuzz"} {
			file, err := root.Open(n)
			if err != nil {
				continue
			}
			data, err := io.ReadAll(file)
			if err != nil || strings.Contains(string(data), "outside") {
				t.Errorf("Open(%q) with link to %q: read %q, %v", n, target, data, err)
			}
			must(t, file.Close())
		}
		if d, err := root.MkdirAll("fuzz/"+name, 0o700); err == nil {
			must(t, d.Close())
		}
		must(t, root.RemoveAll("fuzz"))
		if left, _ := filepath.Glob(dir + "/*"); len(left) != 2 {
			t.Fatalf("outside of the root there is %q", left)
		}
	})
}

func write(t testing.TB, name, content string) {
	t.Helper()
	must(t, os.WriteFile(name, []byte(content), 0o644))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

package container_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// putFile is a source with one small file.
func putFile(name, text string) rootfs.EntrySource {
	return func(emit rootfs.Emit) error {
		e := &layer.Entry{Name: name, Kind: layer.File, Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(1e9, 0)}
		return emit(e, strings.NewReader(text))
	}
}

// readAll returns the files below a name, by their names.
func readAll(ctx context.Context, tree *rootfs.Tree, name string) (map[string]string, error) {
	files := make(map[string]string)
	err := tree.Read(ctx, name, "x", func(e *layer.Entry, content io.Reader) error {
		if e.Kind != layer.File {
			return nil
		}
		text, err := io.ReadAll(content)
		files[e.Name] = string(text)
		return err
	})
	return files, err
}

// TestTreeOfHostile has a container exchange a directory for links to places outside of it, as fast as it can, while files
// are copied both ways.
func TestTreeOfHostile(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		outside := t.TempDir()
		f.must(os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
		s := f.running(container.Spec{})
		f.ok(s, "mkdir /real; echo harmless >/real/secret")
		spec := &container.ProcessSpec{Env: env, Args: []string{
			"sh", "-c", "while :; do rm -rf /a; cp -r /real /a; rm -rf /a; ln -s $0 /a; rm -rf /a; ln -s ../../../../../..$0 /a; done", outside,
		}}
		_, err := s.CreateProcess(ctx, spec)
		f.must(err)
		tree, err := s.OpenTree(ctx)
		f.must(err)
		hit := 0
		deadline := time.Now().Add(testenv.Patience)
		for round := 0; round < 300 || hit == 0 && time.Now().Before(deadline); round++ {
			files, err := readAll(ctx, tree, "/a/secret")
			if err == nil && files["x"] == "harmless\n" {
				hit++
			}
			if strings.Contains(files["x"], "secret") {
				t.Fatal("read what is outside")
			}
			if files, _ := readAll(ctx, tree, "/a/."); files["x/secret"] == "secret" {
				t.Fatal("read what is outside, by its directory")
			}
			_ = tree.Write(ctx, "/a", putFile("planted", "planted"), rootfs.KeepOwner) // which may come to nothing
		}
		f.check(tree.Close())
		if hit == 0 {
			t.Error("the file was never read: the test has shown nothing")
		}
		names, err := filepath.Glob(outside + "/*")
		if err != nil || len(names) != 1 {
			t.Errorf("outside there is %q, %v", names, err)
		}
		f.must(s.Terminate(ctx))
	})
}

// TestTreeOfIdle holds the files of a system that does not run: it is started when they are let go of.
func TestTreeOfIdle(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.created(container.Spec{})
	tree, err := s.OpenTree(ctx)
	f.must(err)
	f.must(tree.Write(ctx, "/", putFile("put", "text"), rootfs.KeepOwner))
	other, err := f.Open(ctx, s.ID())
	f.must(err)
	started := make(chan error, 1)
	go func() { started <- other.Start(ctx) }()
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := s.OpenTree(short); err == nil {
		t.Error("the files of a system that does not run were opened twice at once")
	}
	select {
	case err := <-started:
		t.Fatalf("started while its files are open: %v", err)
	default:
	}
	f.check(tree.Close())
	f.must(<-started)
	if got := f.ok(s, "cat /put"); got != "text" {
		t.Errorf("got %q", got)
	}
	f.must(s.Terminate(ctx))
	f.must(s.Delete(ctx))
	if _, err := s.OpenTree(ctx); !errdefs.IsNotFound(err) {
		t.Errorf("of a deleted system: %v", err)
	}
	f.check(other.Close())
}

// TestTreeOfMounts looks at what is mounted in a system that runs, and in one
// that does not: there a disk is what it will be, and a tmpfs takes nothing.
func TestTreeOfMounts(t *testing.T) {
	testenv.NeedKernel(t, testenv.LoopDevices)
	f := newFixture(t)
	ctx := t.Context()
	image, readOnly := f.ext4Image(8<<20), f.ext4Image(8<<20)
	s := f.created(container.Spec{
		Mounts: []container.Mount{{Type: "tmpfs", Target: "/mem"}},
		Disks:  []container.Disk{{Source: image, Target: "/disk"}, {Source: readOnly, Target: "/read", ReadOnly: true}},
	})
	inTree := func(do func(*rootfs.Tree)) {
		t.Helper()
		tree, err := s.OpenTree(ctx)
		f.must(err)
		do(tree)
		f.must(tree.Close())
	}
	names := func(tree *rootfs.Tree, dir, want string) {
		t.Helper()
		list, err := tree.Names(dir)
		list = slices.DeleteFunc(list, func(n string) bool { return n == "lost+found" })
		if err != nil || strings.Join(list, " ") != want {
			t.Errorf("%s has %q, %v; want %q", dir, list, err, want)
		}
	}
	inTree(func(tree *rootfs.Tree) {
		f.must(tree.Write(ctx, "/disk", putFile("put", "text"), rootfs.KeepOwner))
		names(tree, "/disk", "put")
		for _, dir := range []string{"/mem", "/read"} {
			if err := tree.Write(ctx, dir, putFile("put", "text"), rootfs.KeepOwner); !errors.Is(err, syscall.EROFS) {
				t.Errorf("written to %s of a system that does not run: %v", dir, err)
			}
			names(tree, dir, "")
		}
	})
	f.must(s.Start(ctx))
	if got := f.ok(s, "cat /disk/put; echo x >/disk/kept; echo y >/mem/fleeting"); got != "text" {
		t.Errorf("got %q", got)
	}
	inTree(func(tree *rootfs.Tree) { names(tree, "/mem", "fleeting"); names(tree, "/disk", "kept put") })
	f.must(s.Terminate(ctx))
	inTree(func(tree *rootfs.Tree) { names(tree, "/mem", ""); names(tree, "/disk", "kept put") })
	f.must(os.Remove(image))
	if _, err := s.OpenTree(ctx); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), image) {
		t.Errorf("without its disk: %v", err)
	}
}

// TestTreeInPlace writes to a system's own directory, which the system sees.
func TestTreeInPlace(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	dir := t.TempDir()
	s := f.created(container.Spec{RootDir: dir, WriteInPlace: true})
	tree, err := s.OpenTree(ctx)
	f.must(err)
	f.must(tree.Write(ctx, "/", putFile("put", "text"), rootfs.KeepOwner))
	f.must(tree.Close())
	if text, err := os.ReadFile(filepath.Join(dir, "put")); err != nil || string(text) != "text" {
		t.Errorf("got %q, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(f.config.Root, "containers", s.ID(), "record.json")); err != nil {
		t.Errorf("the record is covered: %v", err)
	}
	f.must(s.Delete(ctx))
}

// TestTreeOfStopping opens the files of a system that is going at the time: they are those of the running or of the stopped
// one, and nothing else happens.
func TestTreeOfStopping(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.created(container.Spec{})
	for range 8 {
		f.must(s.Start(ctx))
		f.ok(s, "echo text >/put")
		ended := make(chan error, 1)
		go func() { ended <- s.Terminate(ctx) }()
		for range 3 {
			tree, err := s.OpenTree(ctx)
			f.must(err)
			files, err := readAll(ctx, tree, "put")
			if err != nil || files["x"] != "text\n" {
				t.Errorf("got %q, %v", files, err)
			}
			f.check(tree.Close())
		}
		f.must(<-ended)
	}
}

// TestRename has the new name be the only one, also for what deletes the system later.
func TestRename(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s, other := f.created(container.Spec{Name: "first"}), f.created(container.Spec{Name: "other"})
	stale, err := f.Open(ctx, "first")
	f.must(err)
	f.must(s.Rename(ctx, "second"))
	if got, err := f.Open(ctx, "second"); err != nil || got.ID() != s.ID() || got.Name() != "second" {
		t.Errorf("by the new name: %v, %v", got, err)
	}
	if _, err := f.Open(ctx, "first"); !errdefs.IsNotFound(err) {
		t.Errorf("by the old name: %v", err)
	}
	for name, is := range map[string]func(error) bool{
		"other": errdefs.IsAlreadyExists, "": errdefs.IsInvalidArgument, "a/b": errdefs.IsInvalidArgument,
	} {
		if err := s.Rename(ctx, name); !is(err) {
			t.Errorf("to %q: %v", name, err)
		}
	}
	f.must(stale.Rename(ctx, "second")) // which it has
	f.must(s.Start(ctx))
	f.must(s.Rename(ctx, "first"))
	f.must(s.Terminate(ctx))
	f.must(stale.Delete(ctx))
	f.must(other.Delete(ctx))
	if names, err := os.ReadDir(filepath.Join(f.config.Root, "names")); err != nil || len(names) > 0 {
		t.Errorf("names are left: %v, %v", names, err)
	}

	e := f.created(container.Spec{Name: "e", Ephemeral: true})
	f.must(e.Rename(ctx, "brief"))
	f.must(e.Start(ctx))
	if err := e.Rename(ctx, "late"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("while it runs, and is to go: %v", err)
	}
	f.must(e.Terminate(ctx))
	if names, err := os.ReadDir(filepath.Join(f.config.Root, "names")); err != nil || len(names) > 0 {
		t.Errorf("names are left: %v, %v", names, err)
	}
	f.check(stale.Close())
}

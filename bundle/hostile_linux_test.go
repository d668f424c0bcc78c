package bundle_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/layer"
)

// The image's own tables of users are read in its tree, and only if they are
// regular files of some size: everything else is an error or no table, and
// never the machine's.
func TestHostileAccounts(t *testing.T) {
	t.Parallel()
	link := func(target string) object {
		return object{Entry: layer.Entry{Kind: layer.Symlink, Name: "etc/passwd", Link: target, Mode: 0o777}}
	}
	me := "me:x:7:8::/home/me:/bin/sh\n"
	for _, tt := range []struct {
		what   string
		passwd []object
		class  error // nil if it is to be found
	}{
		{"regular", []object{file("etc/passwd", me)}, nil},
		{"a link within", []object{file("usr/passwd", me), link("/usr/passwd")}, nil},
		{"a link that leads up", []object{file("usr/passwd", me), link("../../../../usr/passwd")}, nil},
		{"a link to what only the machine has", []object{link("/proc/self/status")}, errdefs.ErrNotFound},
		{"none", nil, errdefs.ErrNotFound},
		{"a FIFO", []object{{Entry: layer.Entry{Kind: layer.Fifo, Name: "etc/passwd", Mode: 0o644}}}, errdefs.ErrInvalidArgument},
		{"a directory", []object{dir("etc/passwd")}, errdefs.ErrInvalidArgument},
		{"too large", []object{file("etc/passwd", strings.Repeat(me, 1<<16))}, errdefs.ErrInvalidArgument},
	} {
		l, img := newImage(t, [][]object{append([]object{dir("etc"), dir("usr")}, tt.passwd...)})
		b := filepath.Join(t.TempDir(), "b")
		err := bundle.Unpack(t.Context(), l, img, b, bundle.UnpackOptions{Mappings: mappings()})
		if !errors.Is(err, tt.class) {
			t.Errorf("%s: %v, want class %v", tt.what, err, tt.class)
		}
		if _, serr := os.Lstat(b); (serr == nil) != (err == nil) {
			t.Errorf("%s: the bundle: %v after %v", tt.what, serr, err)
		}
	}
}

// What umoci.json says is believed only where it can be.
// FuzzMapping reads maps of ids: what is one stays so as text, and has no id that is none.
func FuzzMapping(f *testing.F) {
	f.Add("0:1000")
	f.Add("0:100000:65536")
	f.Add("4294967294:0:2")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := bundle.ParseMapping(text)
		if err != nil {
			return
		}
		if m.Size == 0 || uint64(max(m.ContainerID, m.HostID))+uint64(m.Size) > 1<<32-1 {
			t.Fatalf("%q is %+v", text, m)
		}
		again, err := bundle.ParseMapping(fmt.Sprintf("%d:%d:%d", m.ContainerID, m.HostID, m.Size))
		if err != nil || again != m {
			t.Fatalf("%q is %+v, and then %+v, %v", text, m, again, err)
		}
	})
}

func FuzzMeta(f *testing.F) {
	l, img := newImage(f, testLayers)
	b := filepath.Join(f.TempDir(), "b")
	must(f, bundle.Unpack(f.Context(), l, img, b, bundle.UnpackOptions{Mappings: mappings()}))
	raw, err := os.ReadFile(filepath.Join(b, "umoci.json"))
	must(f, err)
	f.Add(raw)
	f.Add([]byte(`{"umoci_version":"2","from_descriptor_path":{"descriptor_walk":[{"digest":"sha256:../../x","size":1}]}}`))
	f.Add([]byte(`{"umoci_version":"2","from_descriptor_path":{"descriptor_walk":[]},"whiteout_mode":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "umoci.json"), raw, 0o600))
		m, err := bundle.ReadMeta(dir)
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalidArgument) && !errors.Is(err, errdefs.ErrDataLoss) {
				t.Errorf("no class: %v", err)
			}
			return
		}
		if m.Version != bundle.MetaVersion || len(m.From.Walk) == 0 {
			t.Errorf("accepted %+v", m)
		}
		for _, d := range m.From.Walk {
			if strings.ContainsAny(d.Digest.Encoded(), "/.") {
				t.Errorf("accepted digest %q", d.Digest)
			}
		}
	})
}

func TestParseMapping(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]specs.LinuxIDMapping{
		"0:1000:1": {HostID: 1000, Size: 1}, "5:6": {ContainerID: 5, HostID: 6, Size: 1}, "0:0:4294967295": {Size: 1<<32 - 1},
	} {
		if got, err := bundle.ParseMapping(s); err != nil || got != want {
			t.Errorf("%q is %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0", "0:1:2:3", "a:b:c", "-1:0:1", "0:0:0", "0:4294967295:1", "1:0:4294967295", "0:0:4294967296", " 0:0:1"} {
		if got, err := bundle.ParseMapping(s); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q is %+v, %v", s, got, err)
		}
	}
}

// What a bundle says of the layers that it is mounted of does not reach those
// of others, nor make a store where it likes.
func TestHostileOverlay(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	b, store := filepath.Join(t.TempDir(), "b"), filepath.Join(t.TempDir(), "store")
	must(t, bundle.Unpack(t.Context(), l, img, b, bundle.UnpackOptions{Mappings: mappings()}))
	must(t, os.RemoveAll(filepath.Join(b, "rootfs")))
	raw, err := os.ReadFile(filepath.Join(b, "umoci.json"))
	must(t, err)
	overlay := `{"hcs_overlay":{"store":"` + store + `","scratch":"other"},`
	must(t, os.WriteFile(filepath.Join(b, "umoci.json"), []byte(strings.Replace(string(raw), "{", overlay, 1)), 0o600))
	if err := bundle.Unmount(t.Context(), b); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("unmount: %v", err)
	}
	if _, err := bundle.Repack(t.Context(), l, b, bundle.RepackOptions{Tag: "made"}); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("repack: %v", err)
	}
	if _, err := os.Lstat(store); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a store: %v", err)
	}
}

// A manifest that is no file is not waited for.
func TestHostileManifest(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	b := filepath.Join(t.TempDir(), "b")
	must(t, bundle.Unpack(t.Context(), l, img, b, bundle.UnpackOptions{Mappings: mappings()}))
	manifests, err := filepath.Glob(filepath.Join(b, "*.mtree"))
	must(t, err)
	must(t, os.Remove(manifests[0]))
	must(t, syscall.Mkfifo(manifests[0], 0o600))
	if _, err := bundle.Repack(t.Context(), l, b, bundle.RepackOptions{Tag: "made"}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("repack: %v", err)
	}
}

package bundle_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An object is an entry of a layer and a file's content.
type object struct {
	layer.Entry
	content string
}

func dir(name string) object {
	return object{Entry: layer.Entry{Kind: layer.Dir, Name: name, Mode: 0o755}}
}

func file(name, content string) object {
	return object{Entry: layer.Entry{Kind: layer.File, Name: name, Mode: 0o644, Size: int64(len(content))}, content: content}
}

func whiteout(name string) object {
	return object{Entry: layer.Entry{Kind: layer.Whiteout, Name: name}}
}

// owned gives an object an owner.
func owned(o object, uid, gid uint32) object {
	o.UID, o.GID = uid, gid
	return o
}

// testLayers have of everything a bit.
var testLayers = [][]object{
	{
		dir("bin"), file("bin/sh", "shell"), dir("etc"), file("etc/passwd", "root:x:0:0:r:/root:/bin/sh\nme:x:7:8:m:/home/me:/bin/sh\n"),
		{Entry: layer.Entry{Kind: layer.Symlink, Name: "lib", Link: "usr/lib", Mode: 0o777}},
		dir("usr"), dir("usr/lib"), file("usr/lib/a", "a"),
		{Entry: layer.Entry{Kind: layer.Hardlink, Name: "usr/lib/b", Link: "usr/lib/a"}},
		{Entry: layer.Entry{Kind: layer.Fifo, Name: "pipe", Mode: 0o600}},
		dir("gone"), file("gone/1", "1"), dir("kept"), file("kept/1", "1"), file("kept/2", "2"),
	},
	{
		whiteout("gone"), whiteout("kept/1"), owned(file("usr/lib/c", strings.Repeat("c", 100_000)), 7, 8), file("bin/sh", "another shell"),
		{Entry: layer.Entry{Kind: layer.File, Name: "marked", Mode: 0o4755, Xattrs: map[string]string{"user.mark": "value"}}},
	},
	{{Entry: layer.Entry{Kind: layer.Opaque, Name: "kept"}}, file("kept/3", "3"), dir("data"), file("data/x", "x")},
}

// newImage makes a layout with an image of the layers under the tag "base".
func newImage(t testing.TB, layers [][]object) (*image.Layout, *image.Image) {
	t.Helper()
	l, err := image.CreateLayout(t.Context(), filepath.Join(t.TempDir(), "layout"))
	must(t, err)
	base, err := l.New(t.Context(), "base", v1.Image{Author: "test"})
	must(t, err)
	e, err := l.Edit(t.Context(), base)
	must(t, err)
	defer e.Close()
	for _, objects := range layers {
		addLayer(t, e, layer.Gzip, objects)
		e.AddHistory(v1.History{CreatedBy: "test"})
	}
	e.Config.Config = v1.ImageConfig{
		User: "me", Env: []string{"A=b"}, Cmd: []string{"/bin/sh"}, WorkingDir: "/usr", Volumes: map[string]struct{}{"/data": {}},
		Labels: map[string]string{"k": "v"}, ExposedPorts: map[string]struct{}{"80/tcp": {}}, StopSignal: "SIGINT",
	}
	img, err := e.Commit(t.Context(), "base")
	must(t, err)
	return l, img
}

func addLayer(t testing.TB, e *image.Edit, c layer.Compression, objects []object) layer.Digests {
	t.Helper()
	d, err := e.AddLayer(t.Context(), c, func(w *layer.Writer) error {
		for _, o := range objects {
			entry := o.Entry
			entry.ModTime = time.Unix(1_000_000_000, 0)
			if err := w.Write(&entry, strings.NewReader(o.content)); err != nil {
				return err
			}
		}
		return nil
	})
	must(t, err)
	return d
}

// mappings are what this process may do: as root anything.
func mappings() bundle.Mappings { return bundle.Mappings{Rootless: os.Geteuid() != 0} }

func unpack(t testing.TB, l *image.Layout, img *image.Image) string {
	t.Helper()
	b := filepath.Join(t.TempDir(), "bundle")
	must(t, bundle.Unpack(t.Context(), l, img, b, bundle.UnpackOptions{Mappings: mappings()}))
	return b
}

// tree describes what is below a directory, but for what every program makes
// as it likes: the sizes and times of directories.
func tree(t testing.TB, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	links := map[uint64]string{}
	must(t, filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		s := fmt.Sprint(info.Mode(), " ", st.Uid, ":", st.Gid, " ", st.Rdev)
		if !d.IsDir() {
			s += fmt.Sprint(" ", info.ModTime().Unix())
		}
		switch {
		case info.Mode().IsRegular():
			raw, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			s += fmt.Sprintf(" %q", raw)
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			s += " -> " + target
		}
		name := strings.TrimPrefix(p, root)
		if st.Nlink > 1 && !d.IsDir() {
			if first, ok := links[st.Ino]; ok {
				s += " is " + first
			} else {
				links[st.Ino] = name
			}
		}
		buf := make([]byte, 100)
		if n, err := syscall.Getxattr(p, "user.mark", buf); err == nil {
			s += " mark " + string(buf[:n])
		}
		all[name] = s
		return nil
	}))
	return all
}

func sameTree(t testing.TB, what, got, want string) {
	t.Helper()
	a, b := tree(t, got), tree(t, want)
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if a[name] != b[name] {
			t.Errorf("%s: %s is %.200s, want %.200s", what, name, a[name], b[name])
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			t.Errorf("%s: %s is missing", what, name)
		}
	}
}

func umoci(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(testenv.NeedCommand(t, "umoci")[0], args...).CombinedOutput(); err != nil {
		t.Fatalf("umoci %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func TestUnpack(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	b := unpack(t, l, img)
	entries, err := os.ReadDir(b)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := []string{"config.json", "rootfs", "sha256_" + img.Descriptor.Digest.Encoded() + ".mtree", "umoci.json"}
	if !slices.Equal(names, want) {
		t.Errorf("the bundle has %v, want %v", names, want)
	}
	if info, err := os.Stat(b); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(b), ".*")); len(left) > 0 {
		t.Errorf("beside it there is %v", left)
	}
	var spec specs.Spec
	raw, err := os.ReadFile(filepath.Join(b, "config.json"))
	must(t, err)
	must(t, json.Unmarshal(raw, &spec))
	p := spec.Process
	if p.User.UID != 7 || p.User.GID != 8 || p.Cwd != "/usr" || !slices.Contains(p.Env, "HOME=/home/me") {
		t.Errorf("the process is %+v", p)
	}
	for _, name := range []string{"gone", "kept/1", "kept/2"} {
		if _, err := os.Lstat(filepath.Join(b, "rootfs", name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
}

func TestUnpackRefuses(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	for _, there := range []string{"config.json", "rootfs"} {
		b := t.TempDir()
		must(t, os.WriteFile(filepath.Join(b, there), []byte("mine"), 0o600))
		err := bundle.Unpack(t.Context(), l, img, b, bundle.UnpackOptions{Mappings: mappings()})
		if !errors.Is(err, errdefs.ErrAlreadyExists) {
			t.Errorf("with %s: %v", there, err)
		}
		if entries, err := os.ReadDir(b); err != nil || len(entries) != 1 {
			t.Errorf("with %s: there is %v, %v", there, entries, err)
		}
	}
	b := t.TempDir()
	must(t, os.WriteFile(filepath.Join(b, "notes"), []byte("mine"), 0o600))
	must(t, bundle.Unpack(t.Context(), l, img, b, bundle.UnpackOptions{Mappings: mappings()}))
	if entries, err := os.ReadDir(b); err != nil || len(entries) != 5 {
		t.Errorf("beside notes: there is %v, %v", entries, err)
	}
	// A layer that is not what its diffID says, after good ones.
	e, err := l.Edit(t.Context(), img)
	must(t, err)
	defer e.Close()
	d := addLayer(t, e, layer.None, []object{file("new", "new")})
	img, err = e.Commit(t.Context(), "spoiled")
	must(t, err)
	blob := filepath.Join(l.Dir(), "blobs", "sha256", d.Blob.Encoded())
	raw, err := os.ReadFile(blob)
	must(t, err)
	raw[512] ^= 1
	must(t, os.WriteFile(blob, raw, 0o600))
	parent := t.TempDir()
	err = bundle.Unpack(t.Context(), l, img, filepath.Join(parent, "b"), bundle.UnpackOptions{Mappings: mappings()})
	if !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("a spoiled layer: %v", err)
	}
	if entries, err := os.ReadDir(parent); err != nil || len(entries) > 0 {
		t.Errorf("it left %v, %v", entries, err)
	}
}

// A repack of an unchanged bundle adds a step without a layer.
func TestRepackUnchanged(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	b := unpack(t, l, img)
	for _, name := range []string{"rootfs/data/ignored", "rootfs/usr/masked"} {
		must(t, os.WriteFile(filepath.Join(b, name), []byte("x"), 0o600))
	}
	times := time.Unix(1_000_000_000, 0)
	must(t, os.Chtimes(filepath.Join(b, "rootfs/usr"), times, times))
	again, err := bundle.Repack(t.Context(), l, b, bundle.RepackOptions{
		Tag: "again", Mask: []string{"/usr/masked"}, History: &v1.History{CreatedBy: "test"},
	})
	must(t, err)
	steps := bundle.NewStat(again).History
	if len(again.Manifest.Layers) != len(testLayers) || len(steps) != len(testLayers)+1 || !steps[len(testLayers)].EmptyLayer {
		t.Errorf("steps are %+v", steps)
	}
}

// alter changes a bundle's tree in all ways.
func alter(t testing.TB, root string) {
	t.Helper()
	must(t, os.RemoveAll(filepath.Join(root, "usr/lib")))
	must(t, os.WriteFile(filepath.Join(root, "usr/lib"), []byte("a file now"), 0o600))
	must(t, os.Remove(filepath.Join(root, "kept/3")))
	must(t, os.WriteFile(filepath.Join(root, "bin/sh"), []byte("ANOTHER SHELL"), 0o755))
	must(t, os.Chmod(filepath.Join(root, "marked"), 0o600))
	must(t, os.MkdirAll(filepath.Join(root, "new/dir"), 0o700))
	must(t, os.WriteFile(filepath.Join(root, "new/1"), []byte("1"), 0o600))
	must(t, os.Link(filepath.Join(root, "new/1"), filepath.Join(root, "new/2")))
	must(t, os.Symlink("../1", filepath.Join(root, "new/dir/link")))
	must(t, syscall.Mkfifo(filepath.Join(root, "new/fifo"), 0o600))
	must(t, syscall.Setxattr(filepath.Join(root, "new/1"), "user.mark", []byte("v"), 0))
	// Layers have whole seconds: umoci rounds, and here the rest is cut off.
	must(t, exec.Command("find", root, "-newermt", "2020-01-01", "-exec", "touch", "-h", "-d", "@1500000000", "{}", "+").Run())
}

// What is unpacked from what was repacked is what was there, and a layer made
// twice is the same.
func TestRepack(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	b := unpack(t, l, img)
	alter(t, filepath.Join(b, "rootfs"))
	zstd := layer.Zstd
	var made []*image.Image
	for _, tag := range []string{"one", "two"} {
		img, err := bundle.Repack(t.Context(), l, b, bundle.RepackOptions{Tag: tag, Compression: &zstd, KeepVolumes: true})
		must(t, err)
		made = append(made, img)
	}
	top := made[0].Manifest.Layers[len(testLayers)]
	if top.MediaType != v1.MediaTypeImageLayerZstd || top.Digest != made[1].Manifest.Layers[len(testLayers)].Digest {
		t.Errorf("the layers are %+v and %+v", top, made[1].Manifest.Layers[len(testLayers)])
	}
	must(t, image.Verify(t.Context(), l, made[0]))
	sameTree(t, "unpacked again", filepath.Join(unpack(t, l, made[0]), "rootfs"), filepath.Join(b, "rootfs"))
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	b := unpack(t, l, img)
	alter(t, filepath.Join(b, "rootfs"))
	first, err := bundle.Repack(t.Context(), l, b, bundle.RepackOptions{Tag: "one", Refresh: true})
	must(t, err)
	if files, _ := filepath.Glob(filepath.Join(b, "*.mtree")); len(files) != 1 || !strings.Contains(files[0], first.Descriptor.Digest.Encoded()) {
		t.Errorf("manifests are %v", files)
	}
	second, err := bundle.Repack(t.Context(), l, b, bundle.RepackOptions{Tag: "two"})
	must(t, err)
	if len(second.Manifest.Layers) != len(first.Manifest.Layers) {
		t.Error("an unchanged refreshed bundle gave a layer")
	}
	if now, err := os.ReadFile(filepath.Join(b, "rootfs/data/x")); err != nil || string(now) != "x" {
		t.Error(string(now), err)
	}
}

// SourceDate bounds all times of a layer.
func TestSourceDate(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	b := unpack(t, l, img)
	alter(t, filepath.Join(b, "rootfs"))
	date := time.Unix(1_200_000_000, 0)
	made, err := bundle.Repack(t.Context(), l, b, bundle.RepackOptions{Tag: "one", SourceDate: &date})
	must(t, err)
	blob, err := l.Blob(t.Context(), made.Manifest.Layers[len(testLayers)])
	must(t, err)
	defer blob.Close()
	r, err := layer.OpenBlob(blob, layer.Limits{})
	must(t, err)
	defer r.Close()
	n := 0
	for e, err := range r.All() {
		must(t, err)
		if n++; e.ModTime.After(date) {
			t.Errorf("%s is of %v", e.Name, e.ModTime)
		}
	}
	if n < 10 {
		t.Errorf("the layer has %d entries", n)
	}
}

// Each of the two programs unpacks and packs what the other made.
func TestUmociAgrees(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	l, img := newImage(t, testLayers)
	ours, theirs := unpack(t, l, img), filepath.Join(t.TempDir(), "theirs")
	umoci(t, "unpack", "--image", l.Dir()+":base", theirs)
	sameTree(t, "unpacked", filepath.Join(ours, "rootfs"), filepath.Join(theirs, "rootfs"))
	sameSpec(t, ours, theirs)

	unchanged, err := bundle.Repack(t.Context(), l, theirs, bundle.RepackOptions{Tag: "x"})
	must(t, err)
	if len(unchanged.Manifest.Layers) != len(testLayers) {
		t.Errorf("our repack of their unchanged bundle: %+v", unchanged.Manifest.Layers)
	}
	umoci(t, "repack", "--image", l.Dir()+":y", ours)
	if n := len(resolve(t, l, "y").Manifest.Layers); n != len(testLayers) {
		t.Errorf("their repack of our unchanged bundle has %d layers", n)
	}

	for _, b := range []string{ours, theirs} {
		alter(t, filepath.Join(b, "rootfs"))
		must(t, os.Chown(filepath.Join(b, "rootfs/bin/sh"), 3, 4))
		umoci(t, "repack", "--image", l.Dir()+":by-them", b)
		_, err := bundle.Repack(t.Context(), l, b, bundle.RepackOptions{Tag: "by-us"})
		must(t, err)
		for _, tag := range []string{"by-us", "by-them"} {
			again := filepath.Join(t.TempDir(), "again")
			umoci(t, "unpack", "--image", l.Dir()+":"+tag, again)
			sameTree(t, tag+", unpacked by them", filepath.Join(again, "rootfs"), filepath.Join(b, "rootfs"))
			sameTree(t, tag+", unpacked by us", filepath.Join(unpack(t, l, resolve(t, l, tag)), "rootfs"), filepath.Join(b, "rootfs"))
		}
	}
}

func resolve(t testing.TB, l *image.Layout, tag string) *image.Image {
	t.Helper()
	img, err := image.Resolve(t.Context(), l, tag, v1.Platform{})
	must(t, err)
	return img
}

// sameSpec compares config.json, in which ours masks more of /proc.
func sameSpec(t testing.TB, ours, theirs string) {
	t.Helper()
	var specs [2]map[string]any
	for i, b := range []string{ours, theirs} {
		raw, err := os.ReadFile(filepath.Join(b, "config.json"))
		must(t, err)
		must(t, json.Unmarshal(raw, &specs[i]))
		delete(specs[i]["linux"].(map[string]any), "maskedPaths")
	}
	if !reflect.DeepEqual(specs[0], specs[1]) {
		t.Errorf("our config.json\n%v\ntheirs\n%v", specs[0], specs[1])
	}
}

func TestMappedOwners(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	l, img := newImage(t, testLayers)
	ids := []specs.LinuxIDMapping{{HostID: 100_000, Size: 1000}}
	m := bundle.Mappings{UIDs: ids, GIDs: ids}
	ours, theirs := filepath.Join(t.TempDir(), "ours"), filepath.Join(t.TempDir(), "theirs")
	must(t, bundle.Unpack(t.Context(), l, img, ours, bundle.UnpackOptions{Mappings: m}))
	umoci(t, "unpack", "--uid-map", "0:100000:1000", "--gid-map", "0:100000:1000", "--image", l.Dir()+":base", theirs)
	sameTree(t, "mapped", filepath.Join(ours, "rootfs"), filepath.Join(theirs, "rootfs"))
	sameSpec(t, ours, theirs)
	alter(t, filepath.Join(ours, "rootfs"))
	must(t, exec.Command("chown", "-Rh", "100005:100006", filepath.Join(ours, "rootfs")).Run())
	made, err := bundle.Repack(t.Context(), l, ours, bundle.RepackOptions{Tag: "mapped"})
	must(t, err)
	plain := unpack(t, l, made)
	if st, err := os.Stat(filepath.Join(plain, "rootfs/bin/sh")); err != nil || st.Sys().(*syscall.Stat_t).Uid != 5 {
		t.Errorf("the owner is %v, %v", st, err)
	}
}

// An ordinary user's bundle keeps owners beside the files.
func TestRootless(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	b := filepath.Join(t.TempDir(), "b")
	must(t, bundle.Unpack(t.Context(), l, img, b, bundle.UnpackOptions{Mappings: bundle.Mappings{Rootless: true}}))
	unchanged, err := bundle.Repack(t.Context(), l, b, bundle.RepackOptions{Tag: "unchanged"})
	must(t, err)
	if len(unchanged.Manifest.Layers) != len(testLayers) {
		t.Error("an unchanged bundle gave a layer")
	}
	must(t, os.Chmod(filepath.Join(b, "rootfs/usr/lib/c"), 0o600))
	made, err := bundle.Repack(t.Context(), l, b, bundle.RepackOptions{Tag: "changed"})
	must(t, err)
	entries := entriesOf(t, l, made, len(testLayers))
	if len(entries) != 1 || entries[0].UID != 7 || entries[0].GID != 8 || len(entries[0].Xattrs) > 0 {
		t.Errorf("the layer has %+v", entries)
	}
}

func entriesOf(t testing.TB, l *image.Layout, img *image.Image, i int) []*layer.Entry {
	t.Helper()
	tar, err := image.OpenTar(t.Context(), l, img.Manifest.Layers[i], img.DiffIDs()[i])
	must(t, err)
	defer tar.Close()
	var list []*layer.Entry
	for e, err := range layer.NewReader(tar, layer.Limits{}).All() {
		must(t, err)
		list = append(list, e)
	}
	_, err = io.Copy(io.Discard, tar)
	must(t, err)
	return list
}

func TestInsert(t *testing.T) {
	t.Parallel()
	src := filepath.Join(t.TempDir(), "src")
	must(t, os.MkdirAll(filepath.Join(src, "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(src, "sub/f"), []byte("f"), 0o640))
	must(t, os.Link(filepath.Join(src, "sub/f"), filepath.Join(src, "sub/g")))
	must(t, os.Symlink("sub/f", filepath.Join(src, "link")))
	for _, tt := range []struct {
		in   bundle.Insertion
		want string
	}{
		{bundle.Insertion{Source: src, Target: "/opt/x"}, "dir opt/x, symlink opt/x/link, dir opt/x/sub, file opt/x/sub/f, hardlink opt/x/sub/g=opt/x/sub/f"},
		{bundle.Insertion{Source: src + "/", Target: "/"}, "dir ., symlink link, dir sub, file sub/f, hardlink sub/g=sub/f"},
		{bundle.Insertion{Source: filepath.Join(src, "sub/f"), Target: "a/../opt/f"}, "file opt/f"},
		{bundle.Insertion{Source: filepath.Join(src, "link"), Target: "l"}, "symlink l"},
		{bundle.Insertion{Source: src, Target: "opt", Kind: bundle.Replace}, "opaque opt, dir opt, symlink opt/link, dir opt/sub, file opt/sub/f, hardlink opt/sub/g=opt/sub/f"},
		{bundle.Insertion{Target: "/opt/x", Kind: bundle.Whiteout}, "whiteout opt/x"},
	} {
		l, img := newImage(t, nil)
		e, err := l.Edit(t.Context(), img)
		must(t, err)
		_, err = bundle.Insert(t.Context(), bundle.Side{}, e, layer.None, tt.in)
		must(t, err)
		made := commit(t, e, "made")
		var got []string
		for _, o := range entriesOf(t, l, made, 0) {
			s := fmt.Sprint(o.Kind, " ", o.Name)
			if o.Kind == layer.Hardlink {
				s += "=" + o.Link
			}
			got = append(got, s)
		}
		if s := strings.Join(got, ", "); s != tt.want {
			t.Errorf("%+v gives %s, want %s", tt.in, s, tt.want)
		}
	}
	for what, in := range map[string]bundle.Insertion{
		"root removed":   {Target: "/", Kind: bundle.Whiteout},
		"missing source": {Source: filepath.Join(src, "missing"), Target: "x"},
		"whiteout name":  {Source: src, Target: "a/.wh.b"},
	} {
		l, img := newImage(t, nil)
		e, err := l.Edit(t.Context(), img)
		must(t, err)
		if _, err := bundle.Insert(t.Context(), bundle.Side{}, e, layer.None, in); err == nil {
			t.Errorf("%s: no error", what)
		}
		e.Close()
	}
}

// runc starts what is unpacked.
func TestRuncRuns(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountNamespaces)
	runc := testenv.NeedCommand(t, "runc")[0]
	t.Parallel()
	l, err := image.OpenLayout(testenv.Image(t, "busybox"))
	must(t, err)
	b := unpack(t, l, resolve(t, l, "latest"))
	edit(t, filepath.Join(b, "config.json"), func(s *specs.Spec) {
		s.Process.Terminal = false
		s.Process.Args = []string{"/bin/sh", "-c", "echo it runs as $(id -u)"}
	})
	id := fmt.Sprintf("bundle-test-%d", os.Getpid())
	out, err := exec.Command(runc, "--root", t.TempDir(), "run", "--bundle", b, id).CombinedOutput()
	if err != nil || string(out) != "it runs as 0\n" {
		t.Errorf("runc run: %v: %s", err, out)
	}
}

func edit(t testing.TB, name string, change func(*specs.Spec)) {
	t.Helper()
	raw, err := os.ReadFile(name)
	must(t, err)
	var s specs.Spec
	must(t, json.Unmarshal(raw, &s))
	change(&s)
	var buf bytes.Buffer
	must(t, bundle.WriteSpec(&buf, &s))
	must(t, os.WriteFile(name, buf.Bytes(), 0o600))
}

// mount mounts an image as bundles that are unmounted at the test's end, if it has not done so.
func mount(t testing.TB, l *image.Layout, img *image.Image, store rootfs.Config, bundles ...string) {
	t.Helper()
	for _, b := range bundles {
		must(t, bundle.Mount(t.Context(), l, img, b, store))
		t.Cleanup(func() {
			if err := bundle.Unmount(context.WithoutCancel(t.Context()), b); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		})
	}
}

func TestMount(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	top := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: top})
	l, img := newImage(t, testLayers)
	store := rootfs.Config{Dir: filepath.Join(top, "store")}
	one, two := filepath.Join(top, "one"), filepath.Join(top, "two")
	mount(t, l, img, store, one, two)
	copied := unpack(t, l, img)
	sameTree(t, "mounted", filepath.Join(one, "rootfs"), filepath.Join(copied, "rootfs"))
	sameSpec(t, one, copied)
	same, err := bundle.Repack(t.Context(), l, one, bundle.RepackOptions{Tag: "same"})
	must(t, err)
	if len(same.Manifest.Layers) != len(testLayers) {
		t.Error("an unchanged bundle gave a layer")
	}
	alter(t, filepath.Join(one, "rootfs"))
	made, err := bundle.Repack(t.Context(), l, one, bundle.RepackOptions{Tag: "made", KeepVolumes: true})
	must(t, err)
	sameTree(t, "repacked", filepath.Join(unpack(t, l, made), "rootfs"), filepath.Join(one, "rootfs"))
	must(t, bundle.Unmount(t.Context(), one))
	sameTree(t, "the other", filepath.Join(two, "rootfs"), filepath.Join(copied, "rootfs"))
	must(t, os.Mkdir(filepath.Join(two, ".hcs-write-1"), 0o700)) // as of a mount that was killed
	must(t, bundle.Unmount(t.Context(), two))
	for _, b := range []string{one, two} {
		if _, err := os.Lstat(b); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("of %s something is left: %v", b, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(top, "store/*/sha256*")); len(left) > 0 {
		t.Errorf("layers are left: %v", left)
	}
	if err := bundle.Unmount(t.Context(), copied); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("unmount of a plain bundle: %v", err)
	}
}

func commit(t testing.TB, e *image.Edit, tag string) *image.Image {
	t.Helper()
	defer e.Close()
	img, err := e.Commit(t.Context(), tag)
	must(t, err)
	return img
}

// A squashed image has the same files in one layer; compressed anew it has the
// same layers.
func TestSquashAndConvert(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	e, err := l.Edit(t.Context(), img)
	must(t, err)
	must(t, bundle.Squash(t.Context(), l, img, e, bundle.SquashOptions{
		Compression: layer.Gzip, Work: t.TempDir(), History: &v1.History{CreatedBy: "squash"},
	}))
	flat := commit(t, e, "flat")
	if steps := bundle.NewStat(flat).History; len(flat.Manifest.Layers) != 1 || steps[len(steps)-1].Layer == nil || steps[0].Layer != nil {
		t.Errorf("steps are %+v", steps)
	}
	d, err := bundle.Diff(t.Context(), bundle.Side{Source: l, Image: img}, bundle.Side{Source: l, Image: flat})
	must(t, err)
	d.Files = slices.DeleteFunc(d.Files, func(f bundle.FileChange) bool { return f.Name == "." }) // which no layer had
	if len(d.Config)+len(d.Files) > 0 {
		t.Errorf("it differs: %+v", d)
	}
	for _, c := range []layer.Compression{layer.None, layer.Zstd, layer.Gzip} {
		e, err := l.Edit(t.Context(), img)
		must(t, err)
		must(t, bundle.Convert(t.Context(), l, img, e, c))
		made := commit(t, e, c.String())
		if !slices.Equal(made.DiffIDs(), img.DiffIDs()) || made.Manifest.Layers[2].MediaType != c.MediaType() {
			t.Errorf("%v: it has %v", c, made.Manifest.Layers)
		}
		must(t, image.Verify(t.Context(), l, made))
		img = made
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	l, img := newImage(t, testLayers)
	e, err := l.Edit(t.Context(), img)
	must(t, err)
	addLayer(t, e, layer.Zstd, []object{
		file("bin/sh", "ANOTHER SHELL"), whiteout("usr/lib/c"), dir("new"), file("new/x", "x"),
		{Entry: layer.Entry{Kind: layer.Opaque, Name: "kept"}},
		{Entry: layer.Entry{Kind: layer.Symlink, Name: "lib", Link: "elsewhere", Mode: 0o777}},
		owned(file("usr/lib/a", "a"), 1, 1), dir("data/x"),
		{Entry: layer.Entry{Kind: layer.File, Name: "marked", Mode: 0o644, Xattrs: map[string]string{"user.mark": "other"}}},
		// b, which was a link to the old a, stays what it was.
	})
	e.Config.Config.User = ""
	e.Config.Config.Env = []string{"A=c"}
	e.Config.Variant = "v2"
	other := commit(t, e, "other")
	d, err := bundle.Diff(t.Context(), bundle.Side{Source: l, Image: img}, bundle.Side{Source: l, Image: other})
	must(t, err)
	var got []string
	for _, c := range d.Config {
		got = append(got, fmt.Sprintf("%s %s %s", c.Key, c.Before, c.After))
	}
	for _, f := range d.Files {
		got = append(got, strings.TrimSpace(f.Kind+" "+f.Name+" "+strings.Join(f.What, "+")))
	}
	want := []string{
		`config.Env ["A=b"] ["A=c"]`, `config.User "me" `, `variant  "v2"`,
		"modified bin/sh content", "modified data/x type", "deleted kept/3", "modified lib link", "modified marked mode+xattrs",
		"added new", "added new/x", "modified usr/lib/a owner", "deleted usr/lib/c",
	}
	if !slices.Equal(got, want) {
		t.Errorf("differences are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	same, err := bundle.Diff(t.Context(), bundle.Side{Source: l, Image: img}, bundle.Side{Source: l, Image: img})
	if err != nil || len(same.Config)+len(same.Files) > 0 {
		t.Errorf("an image and itself: %+v, %v", same, err)
	}
}

package rootfs_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/regf"
	"github.com/hostcompute/hcs/rootfs"
)

// model is a registry hive as a plain map: keys by path, each with its values.
type model map[string]map[string]string

// set puts a value into a key, which it makes.
func (m model) set(path, name, data string) {
	m.create(path)
	m[path][name] = data
}

// create makes a key with all above it.
func (m model) create(path string) {
	for at, more := path, true; more; {
		if m[at] == nil {
			m[at] = make(map[string]string)
		}
		i := strings.LastIndexByte(at, '\\')
		if more = i >= 0; more {
			at = at[:i]
		}
	}
}

// remove removes a key with all below it.
func (m model) remove(path string) {
	maps.DeleteFunc(m, func(at string, _ map[string]string) bool { return at == path || strings.HasPrefix(at, path+`\`) })
}

// modelOf reads a hive.
func modelOf(t testing.TB, h *regf.Hive) model {
	t.Helper()
	m := make(model)
	for k, err := range h.Walk() {
		must(t, err)
		if k.Path == "" {
			continue
		}
		m[k.Path] = make(map[string]string)
		for v, err := range k.Values() {
			must(t, err)
			m[k.Path][v.Name] = string(v.Data)
		}
	}
	return m
}

func newHive(t testing.TB, name string) *regf.Tree {
	t.Helper()
	tree, err := regf.Minimal(name, 1000)
	must(t, err)
	return tree
}

func treeBytes(t testing.TB, tree *regf.Tree) string {
	t.Helper()
	b, err := tree.Bytes()
	must(t, err)
	return string(b)
}

// editor makes a hive, or a delta, and does the same to a model.
type editor struct {
	t    testing.TB
	r    *rand.Rand
	tree *regf.Tree
	m    model
}

// node returns a key of the tree, which a delta has as one that merges.
func (e *editor) node(path string) *regf.Node {
	n, err := e.tree.Root().Create(path)
	must(e.t, err)
	return n
}

func (e *editor) set(path, name, data string) {
	must(e.t, e.node(path).SetValue(regf.Value{Name: name, Type: regf.TypeBinary, Data: []byte(data)}))
	e.m.set(path, name, data)
}

// fill gives a key, and two below it, values.
func (e *editor) fill(path string) {
	for _, at := range []string{path, path + `\Sub1`, path + `\Sub2`} {
		for range 1 + e.r.IntN(4) {
			e.set(at, fmt.Sprintf("v%d", e.r.IntN(5)), strings.Repeat("x", e.r.IntN(3)*9000)+fmt.Sprint(e.r.Uint32()))
		}
	}
}

// change does something to a key: it gets values, loses one, goes, comes anew, or a subkey goes.
func (e *editor) change(path string) {
	switch e.r.IntN(6) {
	case 0:
		e.fill(path)
	case 1:
		for _, name := range slices.Sorted(maps.Keys(e.m[path])) {
			must(e.t, e.node(path).SetValue(regf.Value{Name: strings.ToUpper(name), Tombstone: true}))
			delete(e.m[path], name)
			return
		}
	case 2:
		e.node(path).SetSemantics(regf.LayerTombstone)
		e.m.create(path) // for those above it
		e.m.remove(path)
	case 3:
		e.m.remove(path)
		e.fill(path)
		for _, at := range []string{path, path + `\Sub1`, path + `\Sub2`} {
			e.node(at).SetSemantics(regf.LayerSupersedeTree)
		}
	case 4:
		if _, ok := e.m[path+`\Sub1`]; ok {
			e.node(path + `\Sub1`).SetSemantics(regf.LayerTombstone)
			e.m.remove(path + `\Sub1`)
		}
	}
}

// hiveKey is a key that the tests change.
func hiveKey(i int) string { return fmt.Sprintf(`Vendor%d\Product`, i) }

// randomHives returns a hive and deltas, the lowest first, as files, and what becomes of them together.
func randomHives(t testing.TB, seed uint64, deltas int) (files []string, want model) {
	t.Helper()
	e := &editor{t: t, r: rand.New(rand.NewPCG(seed, 0)), tree: newHive(t, "SOFTWARE"), m: make(model)}
	for i := range 20 {
		e.fill(hiveKey(i))
	}
	files = append(files, treeBytes(t, e.tree))
	for range deltas {
		e.tree = newHive(t, "SOFTWARE")
		e.tree.Flags |= regf.HeaderLayered
		for i := range 25 { // five of which are new
			e.change(hiveKey(i))
		}
		files = append(files, treeBytes(t, e.tree))
	}
	return files, e.m
}

// hiveHeaders are a base layer with registry hives.
func hiveHeaders(t testing.TB) []tar.Header {
	t.Helper()
	headers := []tar.Header{nt(dir("Files")), nt(dir("Files/Windows")), nt(dir("Files/Windows/System32")), nt(dir("Files/Windows/System32/config"))}
	for _, name := range rootfs.HiveNames() {
		headers = append(headers, nt(file(name.File(), treeBytes(t, newHive(t, string(name))))))
	}
	return headers
}

// hiveLayers returns layers, the base first: it has all hives, and each layer above a delta of one of them.
func hiveLayers(t testing.TB, hive rootfs.HiveName, files []string) [][]byte {
	t.Helper()
	headers := hiveHeaders(t)
	for i := range headers {
		if headers[i].Name == hive.File() {
			headers[i] = nt(file(hive.File(), files[0]))
		}
	}
	layers := [][]byte{tarOf(t, headers...)}
	for _, delta := range files[1:] {
		layers = append(layers, tarOf(t, nt(dir("Files")), nt(dir("Hives")), nt(file(hive.Delta(), delta))))
	}
	return layers
}

// importStack imports layers, the base first, each on top of those before it, and returns the directories, the nearest first.
func importStack(t *testing.T, layers [][]byte) []string {
	t.Helper()
	top := t.TempDir()
	var stack []string
	for i, stream := range layers {
		path := filepath.Join(top, fmt.Sprint(i))
		_, err := importNT(t, path, stack, stream)
		must(t, err)
		stack = append([]string{path}, stack...)
	}
	return stack
}

func openModel(t testing.TB, layers []string, name rootfs.HiveName) model {
	t.Helper()
	h, err := rootfs.OpenHive(layers, name)
	must(t, err)
	m := modelOf(t, h.Hive)
	must(t, h.Validate())
	must(t, h.Close())
	return m
}

// TestRandomHives changes a hive in three layers: the whole hive is what the same changes make of a map, whether it was made
// when the layers were imported, is put together now, or partly so. The layers go out as they came.
func TestRandomHives(t *testing.T) {
	t.Parallel()
	for seed := range uint64(15) {
		name := rootfs.HiveNames()[seed%5]
		files, want := randomHives(t, seed, 3)
		layers := hiveLayers(t, name, files)
		stack := importStack(t, layers)
		if diff := cmp.Diff(want, openModel(t, stack, name)); diff != "" {
			t.Fatalf("seed %d: the hive that was made on import: -want +got:\n%s", seed, diff)
		}
		for i, dir := range stack[:3] {
			for j := i; j < 3; j++ { // the hives of upper layers alone are gone first
				_ = os.Remove(filepath.Join(stack[j], name.Base()))
			}
			if diff := cmp.Diff(want, openModel(t, stack, name)); diff != "" {
				t.Fatalf("seed %d: without %s of %s: -want +got:\n%s", seed, name.Base(), dir, diff)
			}
		}
		for i, stream := range layers {
			var out bytes.Buffer
			must(t, rootfs.WriteNT(t.Context(), stack[len(stack)-1-i], &out))
			if !bytes.Equal(out.Bytes(), stream) {
				t.Errorf("seed %d: layer %d has other bytes", seed, i)
			}
		}
	}
}

// TestHivesOfOtherLayers opens a hive where no layer, or not every layer, changes it.
func TestHivesOfOtherLayers(t *testing.T) {
	t.Parallel()
	files, want := randomHives(t, 100, 2)
	layers := hiveLayers(t, rootfs.SoftwareHive, files)
	plain := tarOf(t, nt(dir("Files")), nt(dir("Hives")))
	stack := importStack(t, [][]byte{layers[0], plain, layers[1], plain, layers[2], plain})
	if diff := cmp.Diff(want, openModel(t, stack, rootfs.SoftwareHive)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for dir, has := range map[string]bool{stack[0]: false, stack[1]: true, stack[2]: false} {
		if _, err := os.Stat(filepath.Join(dir, rootfs.SoftwareHive.Base())); (err == nil) != has {
			t.Errorf("%s has a whole hive: %v, want %v", dir, err, has)
		}
	}
	if got := openModel(t, stack, rootfs.SAMHive); len(got) > 0 {
		t.Errorf("a hive without keys has %v", got)
	}
	for name, class := range map[rootfs.HiveName]error{rootfs.SAMHive: errdefs.ErrNotFound, "NTUSER": errdefs.ErrInvalidArgument} {
		if _, err := rootfs.OpenHive(stack[:5], name); !errors.Is(err, class) {
			t.Errorf("%s without the base layer: %v", name, err)
		}
	}
	if _, err := rootfs.OpenHive(stack[:1], rootfs.SoftwareHive); !errdefs.IsNotFound(err) {
		t.Errorf("the uppermost layer alone: %v", err)
	}
	alone := filepath.Join(t.TempDir(), "alone")
	_, err := importNT(t, alone, nil, layers[1]) // as a scanner does with one layer
	must(t, err)
	if _, err := rootfs.OpenHive([]string{alone}, rootfs.SoftwareHive); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), alone) {
		t.Errorf("a delta alone: %v", err)
	}
}

// TestHostileDeltas imports layers of which the delta is none: the error tells it, and nothing is left.
func TestHostileDeltas(t *testing.T) {
	t.Parallel()
	files, _ := randomHives(t, 7, 1)
	layers := hiveLayers(t, rootfs.SoftwareHive, files)
	base := importStack(t, layers[:1])
	lied := []byte(files[1])
	for i := 40; i < 44; i++ {
		lied[i] = 0xff // of the size of its bins; the checksum no longer fits either
	}
	for what, content := range map[string]string{
		"text": "this is no hive", "zeros": strings.Repeat("\x00", 1<<20), "cut off": files[1][:len(files[1])/2],
		"a lying size": string(lied), "cyclic": cyclic(t), "a removed root": rootless(t),
	} {
		t.Run(what, func(t *testing.T) {
			stream := tarOf(t, nt(dir("Files")), nt(file("Files/x", "x")), nt(dir("Hives")), nt(file("Hives/Software_Delta", content)))
			top := t.TempDir()
			path := filepath.Join(top, "layer")
			_, err := importNT(t, path, base, stream)
			oneLine(t, err, errdefs.ErrInvalidArgument, "import layer to "+path+": Hives/Software_Delta: ")
			if !errors.Is(err, regf.ErrCorrupt) {
				t.Errorf("the class is another one: %v", err)
			}
			empty(t, top)
			_, err = importNT(t, path, nil, stream) // without parents it is not looked at
			must(t, err)
			_, err = rootfs.OpenHive([]string{path, base[0]}, rootfs.SoftwareHive)
			oneLine(t, err, errdefs.ErrInvalidArgument, "open registry hive SOFTWARE: layer "+path+": Hives/Software_Delta: ")
		})
	}
}

// cyclic returns a delta with a key that is below itself.
func cyclic(t testing.TB) string {
	t.Helper()
	tree := newHive(t, "SOFTWARE")
	n, err := tree.Root().Create(`Vendor0\Product\Sub1`)
	must(t, err)
	must(t, n.SetValue(regf.Value{Name: "v", Type: regf.TypeNone}))
	data := []byte(treeBytes(t, tree))
	h, err := regf.Parse(data)
	must(t, err)
	list := func(path string) []byte { // of the subkeys of a key
		k, err := h.Lookup(path)
		must(t, err)
		return data[4096+k.Offset()+4+28:][:4]
	}
	copy(list(`Vendor0\Product`), list("Vendor0"))
	return string(data)
}

// rootless returns a delta that removes the whole hive.
func rootless(t testing.TB) string {
	t.Helper()
	tree := newHive(t, "SOFTWARE")
	tree.Flags |= regf.HeaderLayered
	tree.Root().SetSemantics(regf.LayerTombstone)
	return treeBytes(t, tree)
}

// TestEmptyDelta imports a layer with an empty file where a delta would be: it changes nothing.
func TestEmptyDelta(t *testing.T) {
	t.Parallel()
	files, want := randomHives(t, 3, 0)
	stack := importStack(t, append(hiveLayers(t, rootfs.SystemHive, files),
		tarOf(t, nt(dir("Files")), nt(dir("Hives")), nt(file("Hives/System_Delta", "")))))
	if diff := cmp.Diff(want, openModel(t, stack, rootfs.SystemHive)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestHivesInScratch changes a hive in a mounted stack of layers with deltas. What is there is what all layers make of it, so
// that the scratch layer's delta has the one change, and the layers below keep theirs.
func TestHivesInScratch(t *testing.T) {
	files, want := randomHives(t, 11, 2)
	layers := hiveLayers(t, rootfs.SoftwareHive, files)
	stack := importStack(t, append(layers, tarOf(t, nt(dir("Files")), nt(file("Files/app", "x")), nt(dir("Hives")))))
	for _, layer := range stack {
		checkShown(t, layer, stack)
	}
	v := mountNT(t, stack)
	shown := filepath.Join(v.Root(), strings.TrimPrefix(rootfs.SoftwareHive.File(), "Files/"))
	data, err := os.ReadFile(shown)
	must(t, err)
	h, err := regf.Parse(data)
	must(t, err)
	if diff := cmp.Diff(want, modelOf(t, h)); diff != "" {
		t.Fatalf("the hive in the mounted tree: -want +got:\n%s", diff)
	}
	tree, err := h.Edit()
	must(t, err)
	e := editor{t: t, tree: tree, m: want}
	e.set(`New\Product`, "v", "1")
	must(t, os.WriteFile(shown, []byte(treeBytes(t, tree)), 0o644))
	must(t, v.Unprepare(t.Context()))
	s, err := v.NTScratch(stack)
	must(t, err)
	var out bytes.Buffer
	must(t, s.Write(t.Context(), &out))
	top := filepath.Join(t.TempDir(), "top")
	_, err = importNT(t, top, stack, out.Bytes())
	must(t, err)
	if diff := cmp.Diff(want, openModel(t, append([]string{top}, stack...), rootfs.SoftwareHive)); diff != "" {
		t.Errorf("what was written: -want +got:\n%s", diff)
	}
	delta, err := os.ReadFile(filepath.Join(top, rootfs.SoftwareHive.Delta()))
	must(t, err)
	h, err = regf.Parse(delta)
	must(t, err)
	if diff := cmp.Diff(model{"New": {}, `New\Product`: {"v": "1"}}, modelOf(t, h)); diff != "" {
		t.Errorf("the delta: -want +got:\n%s", diff)
	}
}

// checkShown looks whether a layer's whole hive, if it has one, is where a system has it, with the base's metadata.
func checkShown(t testing.TB, layer string, stack []string) {
	t.Helper()
	whole, err := os.Stat(filepath.Join(layer, rootfs.SoftwareHive.Base()))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	must(t, err)
	shown, err := os.Stat(filepath.Join(layer, rootfs.SoftwareHive.File()))
	must(t, err)
	if !os.SameFile(whole, shown) {
		t.Errorf("%s shows another hive", layer)
	}
	for _, name := range []string{"Files/Windows/System32/config", rootfs.SoftwareHive.File()} {
		e, content, err := rootfs.OpenNT([]string{layer}, name)
		must(t, err)
		if content != nil {
			must(t, content.Close())
		}
		base, content, err := rootfs.OpenNT(stack[len(stack)-1:], name)
		must(t, err)
		if content != nil {
			must(t, content.Close())
		}
		if diff := cmp.Diff(base.NT, e.NT); diff != "" {
			t.Errorf("%s of %s: -base +layer:\n%s", name, layer, diff)
		}
	}
}

// TestHivesOfConverted imports a layer with a delta on a base layer that was not imported, and one that removes the hives.
func TestHivesOfConverted(t *testing.T) {
	t.Parallel()
	testenv.NeedCommand(t, "mkntfs")
	files, want := randomHives(t, 5, 1)
	top := t.TempDir()
	base, child, gone := filepath.Join(top, "base"), filepath.Join(top, "child"), filepath.Join(top, "gone")
	config := filepath.Join(base, "Files/WINDOWS/system32/Config")
	must(t, os.MkdirAll(config, 0o700))
	must(t, os.WriteFile(filepath.Join(config, "software"), []byte(files[0]), 0o600))
	must(t, rootfs.ConvertToBaseLayer(t.Context(), base))
	delta := []tar.Header{nt(dir("Files")), nt(dir("Hives")), nt(file("Hives/SOFTWARE_delta", files[1]))}
	_, err := importNT(t, child, []string{base}, tarOf(t, delta...))
	must(t, err)
	if got := strings.Join(names(t, filepath.Join(child, "Files/WINDOWS/system32/Config")), " "); got != "software" {
		t.Errorf("the layer shows %q", got)
	}
	_, err = importNT(t, gone, []string{base}, tarOf(t, append(delta, wh("Files/Windows/System32"))...))
	must(t, err)
	if got := strings.Join(names(t, filepath.Join(gone, "Files/WINDOWS")), " "); got != "system32" {
		t.Errorf("the layer that removes the hives has %q", got)
	}
	for _, layer := range []string{child, gone} {
		if diff := cmp.Diff(want, openModel(t, []string{layer, base}, rootfs.SoftwareHive)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", layer, diff)
		}
	}
}

// FuzzParseHive reads any file and any log as a hive: what is one can be walked or says why not.
func FuzzParseHive(f *testing.F) {
	hive := []byte(treeBytes(f, newHive(f, "mine")))
	f.Add([]byte{}, []byte{}, false)
	f.Add(hive, []byte{}, false)
	f.Add(hive, hive[:512], true)
	f.Fuzz(func(t *testing.T, data, log []byte, dirty bool) {
		if dirty && len(data) >= 512 {
			data = bytes.Clone(data)
			data[4]++ // the first sequence number
			var sum uint32
			for i := 0; i < 508; i += 4 {
				sum ^= binary.LittleEndian.Uint32(data[i:])
			}
			binary.LittleEndian.PutUint32(data[508:], sum)
		}
		h, err := rootfs.ParseHive("Files/Windows/System32/config/SOFTWARE", data, func(suffix string) ([]byte, error) {
			if suffix == ".LOG1" {
				return log, nil
			}
			return nil, nil
		})
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Fatalf("error of no class: %v", err)
			}
			return
		}
		for _, err := range h.Walk() {
			if err != nil {
				return
			}
		}
	})
}

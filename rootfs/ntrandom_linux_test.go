package rootfs_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/rootfs"
)

// winObject is a file, directory or link of drive C:, as a plain model has it. Names of one file share it.
type winObject struct {
	kind       layer.Kind
	content    string // or the target
	attributes ntfs.Attributes
	descriptor string
	streams    []ntfs.Stream
	made       bool // on Linux, since the tree was mounted
}

// winTree is drive C: by names as they are spelled, "." being the root.
type winTree map[string]*winObject

// below returns the names of an object and of what is in it.
func (w winTree) below(name string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(w)), func(n string) bool { return n != name && !strings.HasPrefix(n, name+"/") })
}

// pick returns a random name of an object of a kind, "" if there is none.
func (w winTree) pick(r *rand.Rand, kind layer.Kind) string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(w)), func(n string) bool { return w[n].kind != kind })
	if len(names) == 0 {
		return ""
	}
	return names[r.IntN(len(names))]
}

// free returns a name in a random directory that nothing has, whatever its case.
func (w winTree) free(r *rand.Rand) string {
	for {
		name := path.Join(w.pick(r, layer.Dir), []string{"a", "B", "c.txt", "Ünï", "long name", "x"}[r.IntN(6)]+fmt.Sprint(r.IntN(50)))
		if !slices.ContainsFunc(slices.Collect(maps.Keys(w)), func(n string) bool { return ntfs.EqualFold(n, name) }) {
			return name
		}
	}
}

// winWriter changes a mounted tree and the model.
type winWriter struct {
	t  testing.TB
	r  *rand.Rand
	in string
	w  winTree
}

func (x *winWriter) path(name string) string { return filepath.Join(x.in, filepath.FromSlash(name)) }

// add notes what Linux made.
func (x *winWriter) add(name string, o winObject) {
	o.made = true
	x.w[name] = &o
}

// settle gives what Linux made the descriptors that it inherits where it is at last, under the first of its names.
func (w winTree) settle(t testing.TB) {
	t.Helper()
	var made layer.Descriptors
	inOrder := func(a, b string) int {
		return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
	}
	for _, name := range slices.SortedFunc(maps.Keys(w), inOrder) {
		o := w[name]
		if !o.made {
			continue
		}
		kind := ntfs.Leaf
		if o.kind == layer.Dir {
			kind = ntfs.Container
		}
		sd, err := made.Inherit([]byte(w[path.Dir(name)].descriptor), kind)
		must(t, err)
		o.descriptor, o.made = string(sd), false
	}
}

func (x *winWriter) change() {
	text := strings.Repeat(fmt.Sprint(x.r.Uint32()), x.r.IntN(500))
	name, file, dir := x.w.free(x.r), x.w.pick(x.r, layer.File), x.w.pick(x.r, layer.Dir)
	switch op := x.r.IntN(12); {
	case op == 0 || op == 1 || file == "":
		must(x.t, os.WriteFile(x.path(name), []byte(text), 0o644))
		x.add(name, winObject{kind: layer.File, content: text, attributes: ntfs.AttrArchive})
	case op == 2:
		must(x.t, os.Mkdir(x.path(name), 0o755))
		x.add(name, winObject{kind: layer.Dir, attributes: ntfs.AttrDirectory})
	case op == 3:
		must(x.t, os.Symlink("target/of/"+name, x.path(name)))
		x.add(name, winObject{kind: layer.Symlink, content: "target/of/" + name, attributes: ntfs.AttrReparse})
	case op == 4:
		must(x.t, write(x.path(file), text, 0))
		x.w[file].content += text
	case op == 5:
		mode := os.FileMode(0o444)
		if x.w[file].attributes ^= ntfs.AttrReadonly; x.w[file].attributes&ntfs.AttrReadonly == 0 {
			mode = 0o644
		}
		must(x.t, os.Chmod(x.path(file), mode))
	case op == 6:
		must(x.t, os.Link(x.path(file), x.path(name)))
		x.w[name] = x.w[file]
	case op == 7:
		x.remove(file)
	case op == 8 && dir != ".":
		x.remove(dir)
		if x.r.IntN(2) == 0 { // in the place of a directory
			must(x.t, os.WriteFile(x.path(dir), []byte(text), 0o644))
			x.add(dir, winObject{kind: layer.File, content: text, attributes: ntfs.AttrArchive})
		}
	case op == 9 && dir != ".":
		x.rename(dir, name)
	case op == 10:
		x.rename(file, name)
	case op == 11:
		x.rename(file, path.Join(path.Dir(file), swapCase(path.Base(file))))
	}
}

func swapCase(s string) string {
	if up := strings.ToUpper(s); up != s {
		return up
	}
	return strings.ToLower(s)
}

func (x *winWriter) remove(name string) {
	must(x.t, os.RemoveAll(x.path(name)))
	for _, n := range x.w.below(name) {
		delete(x.w, n)
	}
}

// rename moves an object, if overlayfs lets it: directories of lower layers stay.
func (x *winWriter) rename(from, to string) {
	if from == to || strings.HasPrefix(to, from+"/") {
		return
	}
	err := os.Rename(x.path(from), x.path(to))
	if errors.Is(err, syscall.EXDEV) && x.w[from].kind == layer.Dir {
		return
	}
	must(x.t, err)
	for _, n := range x.w.below(from) {
		x.w[to+strings.TrimPrefix(n, from)] = x.w[n]
		delete(x.w, n)
	}
}

// lines tells a tree, the case of names aside.
func (w winTree) lines() []string {
	var lines []string
	for name, o := range w {
		lines = append(lines, ntfs.Upcase(name)+" "+o.line())
	}
	slices.Sort(lines)
	return lines
}

func (o *winObject) line() string {
	return fmt.Sprintf("%v %s %s %v %.30q of %d", o.kind, o.attributes, sddlOf([]byte(o.descriptor)), o.streams, o.content, len(o.content))
}

// readTree reads a mounted tree, and Windows' metadata from the layers.
func readTree(t testing.TB, in string, layers []string) winTree {
	t.Helper()
	w := make(winTree)
	must(t, filepath.WalkDir(in, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(in, file)
		must(t, err)
		e, content, err := rootfs.OpenNT(layers, path.Join("Files", filepath.ToSlash(name)))
		must(t, err)
		if content != nil {
			must(t, content.Close())
		}
		o := &winObject{kind: e.Kind, attributes: e.NT.Attributes, descriptor: string(e.NT.SecurityDescriptor), streams: e.NT.Streams}
		switch {
		case d.Type() == fs.ModeSymlink:
			o.content, err = os.Readlink(file)
		case d.Type().IsRegular():
			var b []byte
			b, err = os.ReadFile(file)
			o.content = string(b)
		}
		w[filepath.ToSlash(name)] = o
		return err
	}))
	return w
}

// TestNTScratchRandom makes layers of random changes on top of each other: applied, each shows what was mounted when it was
// written.
func TestNTScratchRandom(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			top := t.TempDir()
			layers := []string{filepath.Join(top, "base")}
			long := sddl(t, "O:SYG:SYD:"+strings.Repeat("(A;OICI;FA;;;SY)", 100)) // too long for an attribute
			stream := file("Files/stream:s", "stream")
			stream.Format = tar.FormatPAX
			_, err := importNT(t, layers[0], nil, tarOf(t, nt(dir("Files"), "MSWINDOWS.rawsd", sddl(t, topSD)),
				nt(file("Files/long", "l"), "MSWINDOWS.rawsd", long), nt(file("Files/stream", "s"), "MSWINDOWS.rawsd", sddl(t, fileSD)), stream,
				nt(dir("Files/sub"), "MSWINDOWS.rawsd", long)))
			must(t, err)
			for round := range uint64(4) {
				v := mountNT(t, layers)
				x := winWriter{t: t, r: rand.New(rand.NewPCG(seed, round)), in: v.Root(), w: readTree(t, v.Root(), layers)}
				for range 25 {
					x.change()
				}
				x.w.settle(t)
				must(t, v.Unprepare(t.Context()))
				s, err := v.NTScratch(layers)
				must(t, err)
				var out bytes.Buffer
				must(t, s.Write(t.Context(), &out))
				dir := filepath.Join(top, fmt.Sprint(round))
				_, err = importNT(t, dir, layers, out.Bytes())
				must(t, err)
				layers = append([]string{dir}, layers...)
				checkMounted(t, layers, x.w)
			}
		})
	}
}

// checkMounted mounts layers and compares what shows with a model.
func checkMounted(t *testing.T, layers []string, want winTree) {
	t.Helper()
	v := mountNT(t, layers)
	if diff := cmp.Diff(want.lines(), readTree(t, v.Root(), layers).lines()); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
}

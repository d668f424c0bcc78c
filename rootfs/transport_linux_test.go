package rootfs_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/rootfs"
)

// ntObject is an entry with its content.
type ntObject struct {
	Entry   *layer.Entry
	Content string
}

func sourceOf(objects []ntObject) rootfs.EntrySource {
	return func(emit rootfs.Emit) error {
		for _, o := range objects {
			if err := emit(o.Entry, strings.NewReader(o.Content)); err != nil {
				return err
			}
		}
		return nil
	}
}

func collectTo(objects *[]ntObject) rootfs.Emit {
	return func(e *layer.Entry, content io.Reader) error {
		o := ntObject{Entry: e}
		if content != nil {
			b, err := io.ReadAll(content)
			if err != nil {
				return err
			}
			o.Content = string(b)
		}
		*objects = append(*objects, o)
		return nil
	}
}

func transportOptions(parents ...string) rootfs.TransportOptions {
	return rootfs.TransportOptions{UserXattr: ntOptions().UserXattr, Parents: parents}
}

func writeFolder(t *testing.T, dir string, objects []ntObject) {
	t.Helper()
	must(t, rootfs.WriteTransport(t.Context(), dir, sourceOf(objects), transportOptions()))
}

func readFolder(t *testing.T, dir string) (objects []ntObject) {
	t.Helper()
	must(t, rootfs.ReadTransport(t.Context(), dir, collectTo(&objects)))
	return objects
}

// folderFile is a file or directory of a folder as it lies on disk.
type folderFile struct {
	Dir             bool
	Content         string
	Attribute       string
	Written, Access time.Time
	First           string // name of the file that it is another name of
}

// listFolder reads a folder without the code that it is to prove right.
func listFolder(t *testing.T, dir string) map[string]folderFile {
	t.Helper()
	all, first := make(map[string]folderFile), make(map[uint64]string)
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		f := folderFile{Dir: d.IsDir(), First: first[st.Ino]}
		if !d.IsDir() || strings.HasPrefix(name, "UtilityVM") {
			f.Written, f.Access = info.ModTime(), time.Unix(st.Atim.Unix())
		}
		if name == "tombstones.txt" || strings.HasSuffix(name, ".bak") {
			f.Written, f.Access = time.Time{}, time.Time{}
		}
		first[st.Ino] = name
		attr := make([]byte, 8192)
		for _, which := range []string{"trusted.hcs.nt", "user.hcs.nt"} {
			if n, err := syscall.Getxattr(path, which, attr); err == nil {
				f.Attribute = hex.EncodeToString(attr[:n])
			}
		}
		if !d.IsDir() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			f.Content = string(b)
			if !f.Access.IsZero() { // reading has changed it
				return errors.Join(os.Chtimes(path, f.Access, f.Written), put(all, name, f))
			}
		}
		return put(all, name, f)
	}))
	return all
}

func put(all map[string]folderFile, name string, f folderFile) error {
	all[name] = f
	return nil
}

var entryEqual = cmp.Options{cmpopts.IgnoreUnexported(layer.Entry{}), cmpopts.EquateEmpty()}

var transportTime = time.Date(2021, 3, 4, 5, 6, 7, 800, time.UTC)

func ntEntry(kind layer.Kind, name string, attributes ntfs.Attributes) *layer.Entry {
	at := transportTime
	return &layer.Entry{Kind: kind, Name: name, ModTime: at, AccessTime: at, ChangeTime: at, NT: &ntfs.Meta{Attributes: attributes, CreationTime: at}}
}

func whiteoutOf(name string) ntObject {
	return ntObject{Entry: &layer.Entry{Kind: layer.Whiteout, Name: name, NT: new(ntfs.Meta)}}
}

// TestTransportBytes holds a folder against its bytes, as hcsshim's internal/wclayer/legacy.go reads and writes them.
func TestTransportBytes(t *testing.T) {
	t.Parallel()
	file := ntEntry(layer.File, "Files/dir/a", ntfs.AttrArchive|ntfs.AttrHidden)
	file.Size, file.NT.SecurityDescriptor = 3, []byte{1, 0, 0, 0x80, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0}
	stream := ntEntry(layer.Stream, "Files/dir/a", 0)
	stream.Stream, stream.Size, stream.NT = "s", 1, new(ntfs.Meta)
	junction := ntEntry(layer.Symlink, "Files/junction", ntfs.AttrDirectory|ntfs.AttrReparse)
	junction.Link = `C:\x`
	junction.NT.Reparse, _ = ntfs.NewLink(ntfs.TagMountPoint, junction.Link).Append(nil)
	link := ntEntry(layer.Hardlink, "Files/link", ntfs.AttrArchive|ntfs.AttrHidden)
	link.Link = "Files/dir/a"
	hive := ntEntry(layer.File, "Hives/System_Delta", ntfs.AttrArchive)
	hive.Size = 4
	dir := filepath.Join(t.TempDir(), "folder")
	objects := []ntObject{
		{ntEntry(layer.Dir, "Files", ntfs.AttrDirectory), ""},
		whiteoutOf("Files/gone"),
		{ntEntry(layer.Dir, "Files/dir", ntfs.AttrDirectory|ntfs.AttrReadonly), ""},
		whiteoutOf("Files/dir/Gone too"),
		{file, "abc"},
		{stream, "S"},
		{junction, ""},
		{link, ""},
		{ntEntry(layer.Dir, "Hives", ntfs.AttrDirectory), ""},
		{hive, "regf"},
	}
	writeFolder(t, dir, objects)
	if diff := cmp.Diff(objects, readFolder(t, dir), entryEqual); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	reparse := "08000000" + "00000000" + fmt.Sprintf("%02x00000000000000", len(junction.NT.Reparse)) + "00000000" + hex.EncodeToString(junction.NT.Reparse)
	for name, want := range map[string]string{
		"tombstones.txt":           "efbbbf" + hex.EncodeToString([]byte("Version 1.0\n\\gone\n\\dir\\Gone too\n")),
		"Files.$wcidirs$":          "10000000",
		"Files/dir.$wcidirs$":      "11000000",
		"Files/junction.$wcidirs$": "10040000" + reparse,
		"Hives.$wcidirs$":          "10000000",
		"Hives/System_Delta":       hex.EncodeToString([]byte("regf")),
		"Files/dir/a": "22000000" +
			"03000000" + "00000000" + "2000000000000000" + "00000000" + hex.EncodeToString(file.NT.SecurityDescriptor) +
			"01000000" + "00000000" + "0300000000000000" + "00000000" + "616263" +
			"04000000" + "00000000" + "0100000000000000" + "10000000" + "3a0073003a00240044004100540041005300"[:32] + "53",
	} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		if hex.EncodeToString(got) != want {
			t.Errorf("%s is\n%x, want\n%s", name, got, want)
		}
	}
	if got := listFolder(t, dir)["Files/link"]; got.First != "Files/dir/a" || !got.Written.Equal(transportTime) {
		t.Errorf("the link is %+v", got)
	}
}

// randomLayer makes a layer in the order that a folder is read in, of what both a tar stream and a folder can tell.
func randomLayer(rng *rand.Rand, n int) []ntObject {
	l := &layerMaker{rng: rng, left: n}
	l.dir("Files", 0)
	l.add(l.entry(layer.Dir, "Hives", ntfs.AttrDirectory), "")
	for _, name := range []string{"Hives/Software_Delta", "Hives/System_Delta"} {
		l.add(l.entry(layer.File, name, ntfs.AttrArchive), l.bytes(5000))
	}
	vm := []string{"UtilityVM", "UtilityVM/Files", "UtilityVM/Files/EFI", "UtilityVM/Files/EFI/Microsoft", "UtilityVM/Files/EFI/Microsoft/Boot"}
	for _, name := range vm {
		l.add(l.entry(layer.Dir, name, ntfs.AttrDirectory), "")
	}
	l.add(l.entry(layer.File, vm[4]+"/BCD", ntfs.AttrArchive), l.bytes(5000))
	l.add(l.entry(layer.File, vm[4]+"/BCD.LOG", ntfs.AttrArchive|ntfs.AttrHidden), "log")
	link := l.entry(layer.Symlink, vm[1]+"/link", ntfs.AttrReparse)
	l.linkTo(link, ntfs.TagSymlink, `..\x`)
	l.add(link, "")
	return l.all
}

type layerMaker struct {
	rng  *rand.Rand
	left int
	all  []ntObject
	file string // the last one, for links
}

var descriptorTexts = []string{"", "O:BAG:SYD:(A;OICI;FA;;;BA)", "O:BUG:BU", "O:SYG:SYD:P(A;;FA;;;SY)(D;;0x1;;;WD)"}

func (l *layerMaker) entry(kind layer.Kind, name string, attributes ntfs.Attributes) *layer.Entry {
	e := ntEntry(kind, name, attributes)
	at := func() time.Time { return transportTime.Add(time.Duration(l.rng.IntN(1e9)) * 100) }
	if l.rng.IntN(2) == 0 {
		e.ModTime, e.AccessTime, e.ChangeTime, e.NT.CreationTime = at(), at(), at(), at()
	}
	if text := descriptorTexts[l.rng.IntN(len(descriptorTexts))]; text != "" {
		d, _ := ntfs.ParseSDDL(text)
		e.NT.SecurityDescriptor, _ = d.Append(nil)
	}
	if l.rng.IntN(9) == 0 {
		e.NT.EA = []ntfs.EA{{Name: "A", Value: []byte{1, 2}}, {Name: "LONGER", Value: []byte("v")}}
	}
	return e
}

func (l *layerMaker) linkTo(e *layer.Entry, tag ntfs.ReparseTag, target string) {
	e.Link = target
	e.NT.Reparse, _ = ntfs.NewLink(tag, target).Append(nil)
}

func (l *layerMaker) add(e *layer.Entry, content string) {
	e.Size = int64(len(content))
	l.all = append(l.all, ntObject{e, content})
	if strings.HasPrefix(e.Name, "Files/") || e.Name == "Files" {
		l.streams(e)
	}
}

func (l *layerMaker) streams(of *layer.Entry) {
	for i := range l.rng.IntN(30) - 27 {
		s := ntEntry(layer.Stream, of.Name, 0)
		s.NT, s.ModTime, s.AccessTime, s.ChangeTime = new(ntfs.Meta), of.ModTime, of.AccessTime, of.ChangeTime
		s.Stream = fmt.Sprintf("stream %d", i)
		content := l.bytes(300)
		s.Size = int64(len(content))
		l.all = append(l.all, ntObject{s, content})
	}
}

func (l *layerMaker) bytes(most int) string {
	b := make([]byte, l.rng.IntN(most))
	for i := range b {
		b[i] = byte(l.rng.Uint32())
	}
	return string(b)
}

// dir makes a directory and what is in it: what is removed first, then names ascending.
func (l *layerMaker) dir(name string, depth int) {
	l.add(l.entry(layer.Dir, name, ntfs.AttrDirectory), "")
	for i := range l.rng.IntN(3) {
		l.all = append(l.all, whiteoutOf(fmt.Sprintf("%s/gone %d", name, i)))
	}
	for i := 0; i < 12 && l.left > 0; i++ {
		l.left--
		l.object(fmt.Sprintf("%s/%c ä\U0001F4C4", name, 'a'+i), depth)
	}
}

func (l *layerMaker) object(name string, depth int) {
	switch k := l.rng.IntN(10); {
	case k < 3 && depth < 6:
		l.dir(name, depth+1)
	case k == 4:
		e := l.entry(layer.Symlink, name, ntfs.AttrReparse)
		l.linkTo(e, ntfs.TagSymlink, `C:\Windows\x y`)
		l.add(e, "")
	case k == 5:
		e := l.entry(layer.Symlink, name, ntfs.AttrReparse|ntfs.AttrDirectory)
		l.linkTo(e, ntfs.TagMountPoint, `C:\Windows`)
		l.add(e, "")
	case k == 6 && l.file != "":
		i := slices.IndexFunc(l.all, func(o ntObject) bool { return o.Entry.Name == l.file && o.Entry.Kind == layer.File })
		e := *l.all[i].Entry
		e.Kind, e.Name, e.Link, e.Size = layer.Hardlink, name, l.file, 0
		e.NT = &ntfs.Meta{Attributes: e.NT.Attributes, CreationTime: e.NT.CreationTime}
		l.all = append(l.all, ntObject{&e, ""})
	default:
		most := 2000
		if l.rng.IntN(50) == 0 {
			most = 300_000
		}
		l.add(l.entry(layer.File, name, ntfs.AttrArchive), l.bytes(most))
		l.file = name
	}
}

// tarOfObjects writes a layer as a tar stream.
func tarOfObjects(t *testing.T, source rootfs.EntrySource) []byte {
	t.Helper()
	var out bytes.Buffer
	w := layer.NewWriter(&out)
	must(t, source(w.Write))
	must(t, w.Close())
	return out.Bytes()
}

func tarSource(stream []byte) rootfs.EntrySource {
	return func(emit rootfs.Emit) error {
		r := layer.ReadOptions{Encoding: layer.NT}.NewReader(bytes.NewReader(stream))
		for e, err := range r.All() {
			if err != nil {
				return err
			}
			if err := emit(e, r); err != nil {
				return err
			}
		}
		return nil
	}
}

// TestTransportRoundTrips sends random layers through folders and tar streams: entries, bytes of the tar stream and the
// folder's files stay what they are.
func TestTransportRoundTrips(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			n := 60
			if seed == 0 {
				n = 2500
			}
			want := randomLayer(rand.New(rand.NewPCG(seed, 1)), n)
			top := t.TempDir()
			first, second := filepath.Join(top, "1"), filepath.Join(top, "2")
			writeFolder(t, first, want)
			if diff := cmp.Diff(want, readFolder(t, first), entryEqual); diff != "" {
				t.Fatalf("entries: -want +got:\n%s", diff)
			}
			stream := tarOfObjects(t, sourceOf(want))
			got := tarOfObjects(t, func(emit rootfs.Emit) error { return rootfs.ReadTransport(t.Context(), first, emit) })
			if !bytes.Equal(stream, got) {
				t.Error("the folder gives other bytes of a tar stream")
			}
			must(t, rootfs.WriteTransport(t.Context(), second, tarSource(got), transportOptions()))
			if diff := cmp.Diff(listFolder(t, first), listFolder(t, second)); diff != "" {
				t.Errorf("the tar stream gives another folder: -first +second:\n%s", diff)
			}
			if left := names(t, top); len(left) != 2 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

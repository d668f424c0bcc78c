package layer_test

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// entriesOf gives entries one by one.
func entriesOf(es ...*layer.Entry) iter.Seq2[*layer.Entry, error] {
	return func(yield func(*layer.Entry, error) bool) {
		for _, e := range es {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// makeWindows makes the Windows layer of a tree.
func makeWindows(t testing.TB, w layer.WindowsTree, es ...*layer.Entry) (got []string, entries []*layer.Entry, err error) {
	t.Helper()
	for e, err := range w.Entries(entriesOf(es...)) {
		if err != nil {
			return got, entries, err
		}
		s := describeNT(e)
		if e.NT.Attributes != 0 {
			s += " " + e.NT.Attributes.String()
		}
		got, entries = append(got, s), append(entries, e)
	}
	return got, entries, nil
}

func TestWindowsTree(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 123)
	got, entries, err := makeWindows(
		t, layer.WindowsTree{},
		&layer.Entry{Name: ".", Kind: layer.Dir, ModTime: at},
		&layer.Entry{Name: "app", Kind: layer.Dir, Mode: 0o755, UID: 5, ModTime: at},
		&layer.Entry{Name: "app/a.txt", Size: 3, Mode: 0o600, ModTime: at, Xattrs: map[string]string{"user.x": "y"}, Records: map[string]string{"A": "b"}},
		&layer.Entry{Name: "app/b.txt", Kind: layer.Hardlink, Link: "app/a.txt", ModTime: at},
		&layer.Entry{Name: "deep/er/c", ModTime: at},
		&layer.Entry{Name: "deep", Kind: layer.Dir, ModTime: at},
		&layer.Entry{Name: "deep/link", Kind: layer.Symlink, Link: "../app", ModTime: at},
		&layer.Entry{Name: "abs", Kind: layer.Symlink, Link: "/app/a.txt", ModTime: at},
		&layer.Entry{Name: "deep/gone", Kind: layer.Whiteout},
	)
	must(t, err)
	want := []string{
		`dir "Files" directory`,
		`dir "Hives" directory`,
		`dir "Files/app" directory`,
		`file "Files/app/a.txt" archive`,
		`hardlink "Files/app/b.txt" -> "Files/app/a.txt" archive`,
		`dir "Files/deep" directory`,
		`dir "Files/deep/er" directory`,
		`file "Files/deep/er/c" archive`,
		`symlink "Files/deep/link" -> "..\\app" directory|reparse`,
		`symlink "Files/abs" -> "\\app\\a.txt" reparse`,
		`whiteout "Files/deep/gone"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var buf bytes.Buffer
	w := layer.NewWriter(&buf)
	for _, e := range entries {
		if e.Mode != 0 || e.UID != 0 || e.Xattrs != nil || e.Records != nil {
			t.Errorf("%q has what Windows has no place for: %+v", e.Name, e)
		}
		must(t, w.Write(e, strings.NewReader("abc")))
	}
	must(t, w.Close())
	readNT(t, buf.Bytes(), nil)
}

// TestWindowsTreeLinks shows links before what they lead to, as trees that are
// walked by name do.
func TestWindowsTreeLinks(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 0)
	link := func(name, target string) *layer.Entry {
		return &layer.Entry{Name: name, Kind: layer.Symlink, Link: target, ModTime: at}
	}
	got, _, err := makeWindows(
		t, layer.WindowsTree{},
		link("abs", "/SUB/"), link("chain", "current"), link("current", "sub/deep"), link("file", "sub/f"),
		&layer.Entry{Name: "hard", Kind: layer.Hardlink, Link: "Current", ModTime: at}, link("loop", "loop"), link("none", "gone"),
		&layer.Entry{Name: "sub", Kind: layer.Dir, ModTime: at},
		&layer.Entry{Name: "sub/deep", Kind: layer.Dir, ModTime: at},
		&layer.Entry{Name: "sub/f", ModTime: at},
		link("up", "sub/../sub/deep/.."),
	)
	must(t, err)
	want := []string{
		`dir "Files" directory`,
		`dir "Hives" directory`,
		`symlink "Files/loop" -> "loop" reparse`,
		`dir "Files/sub" directory`,
		`dir "Files/sub/deep" directory`,
		`file "Files/sub/f" archive`,
		`symlink "Files/up" -> "sub\\..\\sub\\deep\\.." directory|reparse`,
		`symlink "Files/abs" -> "\\SUB\\" directory|reparse`,
		`symlink "Files/chain" -> "current" directory|reparse`,
		`symlink "Files/current" -> "sub\\deep" directory|reparse`,
		`symlink "Files/file" -> "sub\\f" reparse`,
		`hardlink "Files/hard" -> "Files/Current" archive`,
		`symlink "Files/none" -> "gone" reparse`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestWindowsTreeLinksThroughLinks has targets that lead through other links, to
// directories and to files, before and behind what they lead to. Windows takes ".."
// off first, so that "in/.." is where "in" lies and not what it leads to.
func TestWindowsTreeLinksThroughLinks(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 0)
	link := func(name, target string) *layer.Entry {
		return &layer.Entry{Name: name, Kind: layer.Symlink, Link: target, ModTime: at}
	}
	w := layer.WindowsTree{Lower: func(name string) *layer.Entry {
		if name != "Files/Below" {
			return nil
		}
		return &layer.Entry{Name: name, Kind: layer.Dir, NT: new(ntfs.Meta)}
	}}
	_, entries, err := makeWindows(
		t, w,
		link("a", "In/deep"), link("b", "in/f"), link("c", "in/deeper/x"), link("d", "in/../in"), link("e", "in/../f"),
		link("in", "real"), link("real/deeper", "../../../../real/deep"),
		&layer.Entry{Name: "f", ModTime: at},
		&layer.Entry{Name: "real/deep", Kind: layer.Dir, ModTime: at},
		&layer.Entry{Name: "real/deep/x", Kind: layer.Dir, ModTime: at},
		&layer.Entry{Name: "real/f", ModTime: at},
		link("z", `C:\in\deep`), link("low", "Below"), link("around", "here"), link("here", "around/x"), link("gone", "in/gone/x"),
	)
	must(t, err)
	want := map[string]bool{
		"a": true, "b": false, "c": true, "d": true, "e": false, "in": true, "real/deeper": true, "z": true, "low": true,
		"around": false, "here": false, "gone": false,
	}
	for _, e := range entries {
		if e.Kind != layer.Symlink {
			continue
		}
		_, name := layer.SplitPart(e.Name)
		dir, ok := want[name]
		if is := e.NT.Attributes&ntfs.AttrDirectory != 0; !ok || is != dir {
			t.Errorf("link %s -> %s: directory %t", name, e.Link, is)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("there are no %v", want)
	}
}

// TestWindowsTreeNamesBoth has two names of one file in an error.
func TestWindowsTreeNamesBoth(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("Ab", 60)
	for _, c := range [][2]string{
		{"Read.Me", "READ.me"}, {"dir/sub/File", "dir/sub/fILE"}, {"dir/Été", "dir/éTÉ"}, {"x/" + long + "Z", "x/" + long + "z"}, {"Dir", "dIR/x"},
	} {
		_, _, err := makeWindows(t, layer.WindowsTree{}, &layer.Entry{Name: c[0], Kind: layer.Dir}, &layer.Entry{Name: c[1], Kind: layer.Dir})
		first := strconv.Quote("Files/" + c[0])
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), first) && len(c[0]) < 100 {
			t.Errorf("%q and %q: %v", c[0], c[1], err)
		}
	}
}

// TestWindowsTreeInherits checks the descriptors: those of lower layers stay,
// and what is new inherits from them.
func TestWindowsTreeInherits(t *testing.T) {
	t.Parallel()
	lower := readNT(t, export(t, baseLayer, ""), nil)
	w := layer.WindowsTree{Lower: func(name string) *layer.Entry {
		for _, f := range lower {
			if strings.EqualFold(f.Name, name) && f.Kind == layer.Dir {
				return f.Entry
			}
		}
		return nil
	}}
	at := time.Unix(1_700_000_000, 0)
	_, got, err := makeWindows(t, w, &layer.Entry{Name: "Windows/System32/new/x", ModTime: at}, &layer.Entry{Name: "Windows/y", ModTime: at})
	must(t, err)
	by := map[string]*layer.Entry{}
	for _, e := range got {
		by[e.Name] = e
	}
	for _, name := range []string{"Files", "Files/Windows", "Files/Windows/System32"} {
		l := w.Lower(name)
		if e := by[name]; e == nil || !bytes.Equal(e.NT.SecurityDescriptor, l.NT.SecurityDescriptor) || !e.ModTime.Equal(l.ModTime) || e.NT.Attributes != l.NT.Attributes {
			t.Errorf("%q is not that of the lower layer: %+v", name, e)
		}
	}
	dir, file := sddl(t, by["Files/Windows/System32/new"]), sddl(t, by["Files/Windows/System32/new/x"])
	if file != sddl(t, by["Files/Windows/y"]) {
		t.Errorf("files inherit differently: %s, %s", file, sddl(t, by["Files/Windows/y"]))
	}
	for _, c := range []struct{ in, want string }{
		{dir, "(A;OICIID;FA;;;BA)"},
		{dir, "(A;OICIID;FA;;;SY)"},
		{dir, "(A;OICIIOID;GA;;;CO)"},
		{file, "(A;ID;FA;;;BA)"},
		{file, "(A;ID;0x1200a9;;;BU)"},
	} {
		if !strings.Contains(c.in, c.want) {
			t.Errorf("%s is not in %s", c.want, c.in)
		}
	}
	if strings.Contains(file, "CO") || strings.Contains(file, "OICI") {
		t.Errorf("a file has what directories inherit: %s", file)
	}
}

// sddl returns the text of an entry's descriptor.
func sddl(t testing.TB, e *layer.Entry) string {
	t.Helper()
	d, err := ntfs.ParseSecurityDescriptor(e.NT.SecurityDescriptor)
	must(t, err)
	text, err := d.SDDL()
	must(t, err)
	return text
}

func TestWindowsTreeRefuses(t *testing.T) {
	t.Parallel()
	for _, es := range [][]*layer.Entry{
		{{Name: "null", Kind: layer.CharDevice}},
		{{Name: "pipe", Kind: layer.Fifo}},
		{{Name: "d", Kind: layer.Opaque}},
		{{Name: "a:b"}},
		{{Name: "what?"}},
		{{Name: "aux.c"}},
		{{Name: "dot."}},
		{{Name: "a"}, {Name: "A"}},
		{{Name: "a"}, {Name: "a"}},
		{{Name: "a"}, {Name: "a/b"}},
		{{Name: "d", Kind: layer.Dir}, {Name: "D/b"}},
		{{Name: "latin-\xe9"}},
	} {
		_, _, err := makeWindows(t, layer.WindowsTree{}, es...)
		var entryErr *layer.EntryError
		if !errors.Is(err, errdefs.ErrInvalidArgument) || !errors.As(err, &entryErr) {
			t.Errorf("%q: %v", es[len(es)-1].Name, err)
		}
	}
}

// TestWindowsTreeOfStream makes a Windows layer of a tar file while that is
// read.
func TestWindowsTreeOfStream(t *testing.T) {
	t.Parallel()
	var in bytes.Buffer
	tw := tar.NewWriter(&in)
	for i := range 50 {
		content := strings.Repeat("x", i*100)
		must(t, tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/f%d", i/10, i), Size: int64(len(content))}))
		_, err := io.WriteString(tw, content)
		must(t, err)
	}
	must(t, tw.Close())
	var out bytes.Buffer
	r, w := layer.NewReader(&in, layer.Limits{}), layer.NewWriter(&out)
	for e, err := range (layer.WindowsTree{}).Entries(r.All()) {
		must(t, err)
		must(t, w.Write(e, r))
	}
	must(t, w.Close())
	files := 0
	for _, f := range readNT(t, out.Bytes(), func(layer.Warning) {}) {
		if f.Kind == layer.File {
			if len(f.Content) != files*100 {
				t.Errorf("%q has %d bytes", f.Name, len(f.Content))
			}
			files++
		}
	}
	if files != 50 {
		t.Errorf("%d files", files)
	}
	stopped := 0
	for range (layer.WindowsTree{}).Entries(entriesOf(&layer.Entry{Name: "a"}, &layer.Entry{Name: "b"})) {
		stopped++
		break
	}
	if stopped != 1 {
		t.Errorf("sequence went on")
	}
}

func TestEncodingAuto(t *testing.T) {
	t.Parallel()
	posix := archiveTar(t, tar.FormatPAX)
	files := posixFile(t, "Files/x")
	for name, c := range map[string]struct {
		in   []byte
		want bool
	}{
		"base": {export(t, baseLayer, ""), true}, "diff": {export(t, diffLayer, ""), true},
		"hives first": {posixFile(t, "Hives/System_Delta"), true},
		"linux":       {posix, false}, "a directory called Files": {files, false}, "empty": {make([]byte, 1024), false},
	} {
		var out bytes.Buffer
		r, w := layer.ReadOptions{Encoding: layer.Auto}.NewReader(bytes.NewReader(c.in)), layer.NewWriter(&out)
		if r.Encoding() != layer.Auto {
			t.Errorf("%s: encoding %s before the first entry", name, r.Encoding())
		}
		for e, err := range r.All() {
			must(t, err)
			if (e.NT != nil) != c.want || (r.Encoding() == layer.NT) != c.want {
				t.Errorf("%s: %q read with NT %v", name, e.Name, e.NT)
			}
			must(t, w.Write(e, r))
		}
		trailer, err := r.Trailer()
		must(t, err)
		must(t, w.CloseWith(trailer))
		if !bytes.Equal(c.in, out.Bytes()) {
			t.Errorf("%s: written again with different bytes", name)
		}
	}
	if layer.EncodingOf("windows") != layer.NT || layer.EncodingOf("linux") != layer.POSIX || layer.EncodingOf("") != layer.POSIX {
		t.Error("encodings by system")
	}
}

func posixFile(t testing.TB, name string) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	must(t, w.WriteHeader(&tar.Header{Name: name, PAXRecords: map[string]string{"VENDOR.x": "y", "SCHILY.xattr.user.a": "b"}}))
	must(t, w.WriteHeader(&tar.Header{Name: name + "2"}))
	must(t, w.Close())
	return buf.Bytes()
}

// TestNTBlob reads a compressed layer and writes it as another blob.
func TestNTBlob(t *testing.T) {
	t.Parallel()
	in := export(t, diffLayer, "")
	blob, err := layer.ReadOptions{Encoding: layer.NT}.OpenBlob(bytes.NewReader(compress(t, in, layer.Gzip, len(in))))
	must(t, err)
	defer blob.Close()
	var out bytes.Buffer
	w, err := layer.CreateBlob(&out, layer.None)
	must(t, err)
	defer w.Close()
	for e, err := range blob.All() {
		must(t, err)
		must(t, w.Write(e, blob))
	}
	trailer, err := blob.Trailer()
	must(t, err)
	must(t, w.CloseWith(trailer))
	was, err := blob.Finish()
	must(t, err)
	is, err := w.Finish()
	must(t, err)
	if was.DiffID != is.DiffID || !bytes.Equal(in, out.Bytes()) {
		t.Errorf("diffID %s became %s", was.DiffID, is.DiffID)
	}
}

func TestNTWriterRefuses(t *testing.T) {
	t.Parallel()
	nt := new(ntfs.Meta)
	for _, e := range []layer.Entry{
		{Name: "etc/passwd", NT: nt},
		{Name: "Files/a:b", NT: nt},
		{Name: "Files/nul", NT: nt},
		{Name: `Files/a\b`, NT: nt},
		{Name: "Files", NT: nt},
		{Name: "Files/a", Kind: layer.CharDevice, NT: nt},
		{Name: "Files/a", Kind: layer.Stream, NT: nt},
		{Name: "Files/a", Kind: layer.Stream, Stream: "a:b", NT: nt},
		{Name: "Files/a", Kind: layer.Stream, Stream: "s"},
		{Name: "Files/a", Stream: "s", NT: nt},
		{Name: "Files/a", Kind: layer.Hardlink, Link: "b", NT: nt},
		{Name: "Files/a", Kind: layer.Hardlink, Link: "Hives/b", NT: nt},
		{Name: "Hives/a", Kind: layer.Whiteout, NT: nt},
		{Name: "Files/a", Kind: layer.Symlink, Link: "a\x00b", NT: nt},
		{Name: "Files/a", NT: &ntfs.Meta{EA: []ntfs.EA{{Name: "A"}, {Name: "A"}}}},
		{Name: "Files/a", NT: &ntfs.Meta{EA: []ntfs.EA{{Name: ""}}}},
		{Name: "Files/a", NT: &ntfs.Meta{Reparse: []byte{0x17, 0, 0, 0x80, 0, 0, 0, 0}}},
		{Name: "Files/a", NT: nt, Records: map[string]string{"MSWINDOWS.rawsd": "x"}},
		{Name: "Files/a", NT: nt, Size: 1},
	} {
		if err := layer.NewWriter(io.Discard).Write(&e, nil); err == nil {
			t.Errorf("accepted %+v", e)
		}
	}
}

// TestNTLinksWithoutPrintName checks that the target of a junction that
// PowerShell made is not lost.
func TestNTLinksWithoutPrintName(t *testing.T) {
	t.Parallel()
	l := ntfs.NewLink(ntfs.TagMountPoint, `C:\data`)
	l.PrintName = ""
	b, err := l.Append(nil)
	must(t, err)
	var out bytes.Buffer
	w := layer.NewWriter(&out)
	must(t, w.Write(&layer.Entry{Name: "Files/j", Kind: layer.Symlink, NT: &ntfs.Meta{Attributes: ntfs.AttrDirectory | ntfs.AttrReparse, Reparse: b}}, nil))
	must(t, w.Close())
	files := readNT(t, out.Bytes(), func(layer.Warning) {})
	if target, mount := linkOf(t, files[1].Entry); files[1].Link != `C:\data` || target != `C:\data` || !mount {
		t.Errorf("%+v leads to %q", files[1].Entry, target)
	}
}

// TestBuilderDescriptor checks that the descriptor of what is made up is the
// one that is documented.
func TestBuilderDescriptor(t *testing.T) {
	t.Parallel()
	const want = "O:BAG:SYD:(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)(A;;FA;;;BA)(A;OICIIO;GA;;;CO)(A;OICI;0x1200a9;;;BU)(A;CI;LC;;;BU)(A;CI;DC;;;BU)"
	_, entries, err := makeWindows(t, layer.WindowsTree{})
	must(t, err)
	for _, e := range entries {
		if got := sddl(t, e); got != want {
			t.Errorf("%q has %s, want %s", e.Name, got, want)
		}
		if got := base64.StdEncoding.EncodeToString(e.NT.SecurityDescriptor); got != builderSD {
			t.Errorf("%q has %s, want %s", e.Name, got, builderSD)
		}
	}
}

// TestNTChangedEntry checks that a change of any field is written, although
// the entry remembers its header.
func TestNTChangedEntry(t *testing.T) {
	t.Parallel()
	in := export(t, diffLayer, "")
	for name, change := range map[string]func(*layer.Entry){
		"attributes": func(e *layer.Entry) { e.NT.Attributes |= 2 },
		"created":    func(e *layer.Entry) { e.NT.CreationTime = e.NT.CreationTime.Add(100) },
		"descriptor": func(e *layer.Entry) { e.NT.SecurityDescriptor = nil },
		"EA":         func(e *layer.Entry) { e.NT.EA = []ntfs.EA{{Name: "A", Value: []byte{1}}} },
		"accessed":   func(e *layer.Entry) { e.AccessTime = e.AccessTime.Add(100) },
		"record":     func(e *layer.Entry) { e.Records = map[string]string{"A": "b"} },
		"name":       func(e *layer.Entry) { e.Name += "2" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := readNT(t, in, nil)
			i := slices.IndexFunc(files, func(f file) bool { return f.Name == "Files/app.exe" })
			change(files[i].Entry)
			var out bytes.Buffer
			w := layer.NewWriter(&out)
			for _, f := range files {
				must(t, w.Write(f.Entry, bytes.NewReader(f.Content)))
			}
			must(t, w.Close())
			again := readNT(t, out.Bytes(), nil)
			if !slices.EqualFunc(files, again, func(a, b file) bool { return describeNT(a.Entry) == describeNT(b.Entry) }) {
				t.Error("other entries")
			}
			was, is := files[i], again[i]
			if fmt.Sprintf("%+v", *was.NT) != fmt.Sprintf("%+v", *is.NT) || !was.AccessTime.Equal(is.AccessTime) || len(was.Records) != len(is.Records) {
				t.Errorf("is %+v, %+v\nwas %+v, %+v", is.Entry, is.NT, was.Entry, was.NT)
			}
		})
	}
}

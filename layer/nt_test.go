package layer_test

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// winFile is a file as Windows' exporter sees it.
type winFile struct {
	name    string // with slashes
	attrs   uint32
	sd      string // base64
	eas     map[string]string
	link    string // reparse point's target
	mount   bool
	hard    string // hard link to it
	content string
	streams []string // names of alternate streams
	gone    bool     // a whiteout
}

// Descriptors, as builders on Linux give them to directories and to files.
const (
	builderSD = "AQAEgBQAAAAkAAAAAAAAADAAAAABAgAAAAAABSAAAAAgAgAAAQEAAAAAAAUSAAAAAgCoAAcAAAAAAxgA/wEfAAECAAAAAAAFIAAAACACAAAAAxQA/wEfAAEBAAAAAAAFEgAAAAAAGAD/AR8AAQIAAAAAAAUgAAAAIAIAAAALFAAAAAAQAQEAAAAAAAMAAAAAAAMYAKkAEgABAgAAAAAABSAAAAAhAgAAAAIYAAQAAAABAgAAAAAABSAAAAAhAgAAAAIYAAIAAAABAgAAAAAABSAAAAAhAgAA"
	fileSD    = "AQAEgBQAAAAkAAAAAAAAADAAAAABAgAAAAAABSAAAAAgAgAAAQEAAAAAAAUSAAAAAgBMAAMAAAAAABgA/wEfAAECAAAAAAAFIAAAACACAAAAABQA/wEfAAEBAAAAAAAFEgAAAAAAGACpABIAAQIAAAAAAAUgAAAAIQIAAA=="
)

// export writes a layer in the way of ociwclayer.ExportLayerToTar, by Go's
// archive/tar: what Windows' layers are made by. Streams get the suffix.
func export(t testing.TB, files []winFile, suffix string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i, f := range withParents(files) {
		h := exportHeader(f, i)
		must(t, w.WriteHeader(h))
		_, err := io.WriteString(w, f.content)
		must(t, err)
		for _, s := range f.streams {
			must(t, w.WriteHeader(&tar.Header{
				Format: tar.FormatPAX, Name: f.name + ":" + s + suffix, Mode: h.Mode, Typeflag: tar.TypeReg, Size: int64(len(s)),
				ModTime: h.ModTime, AccessTime: h.AccessTime, ChangeTime: h.ChangeTime,
			}))
			_, err := io.WriteString(w, s)
			must(t, err)
		}
	}
	must(t, w.Close())
	return buf.Bytes()
}

// withParents puts directories before files whose parents have no entry.
func withParents(files []winFile) (all []winFile) {
	seen := map[string]bool{}
	var add func(f winFile)
	add = func(f winFile) {
		if dir := path.Dir(f.name); dir != "." && !seen[dir] {
			add(winFile{name: dir, attrs: 0x10, sd: dirSD})
		}
		seen[f.name] = true
		all = append(all, f)
	}
	for _, f := range files {
		add(f)
	}
	return all
}

func exportHeader(f winFile, i int) *tar.Header {
	if f.gone {
		return &tar.Header{Name: f.name}
	}
	at := time.Unix(1_600_000_000+int64(i), int64(i)*100)
	h := &tar.Header{
		Format: tar.FormatPAX, Name: f.name, Size: int64(len(f.content)), Typeflag: tar.TypeReg,
		ModTime: at, AccessTime: at.Add(time.Hour), ChangeTime: time.Unix(-5, 100), Linkname: f.link,
		PAXRecords: map[string]string{
			"MSWINDOWS.fileattr":      fmt.Sprint(f.attrs),
			"LIBARCHIVE.creationtime": []string{"1600000000", "1234567890.1234567", "-5.25", "-0.0000001"}[i%4],
		},
	}
	if f.attrs&0x10 != 0 {
		h.Mode, h.Typeflag = 0o40000, tar.TypeDir
	}
	if f.hard != "" {
		h.Mode, h.Typeflag, h.Linkname = 0o644, tar.TypeLink, f.hard
		return h
	}
	if len(f.content) > 0 {
		h.Mode |= 0o100000
	}
	if f.sd != "" {
		h.PAXRecords["MSWINDOWS.rawsd"] = f.sd
	}
	if f.attrs&0x400 != 0 {
		h.Mode, h.Typeflag = h.Mode|0o120000, tar.TypeSymlink
	}
	if f.mount {
		h.PAXRecords["MSWINDOWS.mountpoint"] = "1"
	}
	for k, v := range f.eas {
		h.PAXRecords["MSWINDOWS.xattr."+k] = base64.StdEncoding.EncodeToString([]byte(v))
	}
	return h
}

var (
	long = strings.Repeat("WinSxS long directory name/", 9)

	// dirSD is builderSD with another control flag: inherited automatically.
	dirSD = func() string {
		b, _ := base64.StdEncoding.DecodeString(builderSD)
		b[3] |= 4
		return base64.StdEncoding.EncodeToString(b)
	}()

	// baseLayer is a base layer in small.
	baseLayer = []winFile{
		{name: "Files", attrs: 0x10, sd: dirSD},
		{name: "Files/$Recycle.Bin", attrs: 0x16, sd: dirSD},
		{name: "Files/Documents and Settings", attrs: 0x2410, sd: fileSD, link: `C:\Users`, mount: true},
		{name: "Files/Users", attrs: 0x11, sd: dirSD},
		{name: "Files/Users/All Users", attrs: 0x2416, sd: fileSD, link: `C:\ProgramData`},
		{name: "Files/Users/Ülrich 𝔘 名前", attrs: 0x10, sd: dirSD},
		{name: "Files/Users/Ülrich 𝔘 名前/link", attrs: 0x420, sd: fileSD, link: `..\Ünter\𝔘`},
		{name: "Files/Users/lone \xed\xa0\x80", attrs: 0x20, sd: fileSD, content: "surrogate"},
		{name: "Files/Windows", attrs: 0x10, sd: dirSD, streams: []string{"on a directory"}},
		{name: "Files/Windows/System32", attrs: 0x10, sd: dirSD},
		{name: "Files/Windows/System32/config", attrs: 0x10, sd: dirSD},
		{name: "Files/Windows/System32/config/SYSTEM", attrs: 0x20, sd: fileSD, content: "regf"},
		{
			name: "Files/Windows/System32/kernel32.dll", attrs: 0x20, sd: fileSD, content: strings.Repeat("MZ", 5000),
			eas: map[string]string{"$KERNEL.PURGE.ESBCACHE": "\x00\x01", "$CI.CATALOGHINT": "\x01\x00\x00\xff", "A": ""},
		},
		{name: "Files/Windows/System32/empty.txt", attrs: 0x2020, sd: fileSD},
		{
			name: "Files/Windows/System32/readme.txt", attrs: 0x2220, sd: fileSD, content: "hello",
			streams: []string{"Zone.Identifier", "Zwei ü", "second"},
		},
		{name: "Files/Windows/System32/readme2.txt", attrs: 0x20, hard: "Files/Windows/System32/readme.txt"},
		{name: "Files/" + long + "file", attrs: 0x20, sd: fileSD, content: "far", streams: []string{"s"}},
		{name: "Files/" + long + "ü", attrs: 0x20, hard: "Files/" + long + "file"},
		{name: "Files/" + long + "link", attrs: 0x410, link: strings.Repeat(`..\`, 50)},
		{name: "UtilityVM", attrs: 0x10, sd: dirSD},
		{name: "UtilityVM/Files", attrs: 0x10, sd: dirSD},
		{name: "UtilityVM/Files/bootmgr", attrs: 0x27, sd: fileSD, content: "boot"},
		{name: "UtilityVM/Files/bootmgr2", attrs: 0x27, hard: "UtilityVM/Files/bootmgr"},
	}

	// diffLayer is another on top of it.
	diffLayer = []winFile{
		{name: "Files", attrs: 0x10},
		{name: "Files/Windows", attrs: 0x10, sd: dirSD},
		{name: "Files/Windows/.wh.win.ini", gone: true},
		{name: "Files/Windows/System32", attrs: 0x10, sd: dirSD},
		{name: "Files/Windows/System32/.wh.Ünter", gone: true},
		{name: "Files/Windows/System32/.wh." + strings.Repeat("n", 90), gone: true},
		{name: "Files/Windows/System32/.wh." + strings.Repeat("n", 120), gone: true},
		{name: "Files/app.exe", attrs: 0x20, sd: fileSD, content: "MZ"},
		{name: "Files/kernel", attrs: 0x20, hard: "Files/Windows/System32/kernel32.dll"},
		{name: "Hives", attrs: 0x10},
		{name: "Hives/DefaultUser_Delta", attrs: 0x20, content: "regf"},
		{name: "Hives/Sam_Delta", attrs: 0x20, content: "regf"},
		{name: "Hives/Security_Delta", attrs: 0x20, content: "regf"},
		{name: "Hives/Software_Delta", attrs: 0x20, content: "regf"},
		{name: "Hives/System_Delta", attrs: 0x20, content: "regf"},
	}
)

// readNT reads a layer without a warning, unless told otherwise.
func readNT(t testing.TB, in []byte, warn func(layer.Warning)) []file {
	t.Helper()
	if warn == nil {
		warn = func(w layer.Warning) { t.Errorf("warning: %s", w) }
	}
	var all []file
	r := layer.ReadOptions{Encoding: layer.NT, Warn: warn}.NewReader(bytes.NewReader(in))
	for e, err := range r.All() {
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		all = append(all, file{e, content})
	}
	return all
}

// rewriteNT reads a layer and writes it again.
func rewriteNT(t testing.TB, in []byte, change func(*layer.Entry)) []byte {
	t.Helper()
	var out bytes.Buffer
	r := layer.ReadOptions{Encoding: layer.NT}.NewReader(bytes.NewReader(in))
	w := layer.NewWriter(&out)
	for e, err := range r.All() {
		must(t, err)
		change(e)
		must(t, w.Write(e, r))
	}
	trailer, err := r.Trailer()
	must(t, err)
	must(t, w.CloseWith(trailer))
	return out.Bytes()
}

func unchanged(*layer.Entry) {}

// TestNTExported checks that layers stay byte for byte what they are, and that
// ours are byte for byte what Windows' exporter writes.
func TestNTExported(t *testing.T) {
	t.Parallel()
	for name, in := range map[string][]byte{"base": export(t, baseLayer, ""), "diff": export(t, diffLayer, "")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			readNT(t, in, nil)
			if out := rewriteNT(t, in, unchanged); !bytes.Equal(in, out) {
				t.Errorf("written again: %d bytes, which differ from the %d read at %d", len(out), len(in), firstDifference(in, out))
			}
			if out := rewriteNT(t, in, (*layer.Entry).Forget); !bytes.Equal(in, out) {
				i := firstDifference(in, out)
				t.Errorf("encoded anew: %d bytes, which differ from the %d read at %d:\n%q\n%q", len(out), len(in), i, window(in, i), window(out, i))
			}
		})
	}
}

// window shows the surroundings of a byte, without the zeros.
func window(b []byte, at int) []byte {
	return bytes.ReplaceAll(b[max(0, at-600):min(len(b), at+600)], []byte{0}, nil)
}

// TestNTStreamSuffix reads what the importer of cimfs wants: streams with
// their type.
func TestNTStreamSuffix(t *testing.T) {
	t.Parallel()
	plain, cim := export(t, baseLayer, ""), export(t, baseLayer, ":$DATA")
	if diff := cmp.Diff(readNT(t, plain, nil), readNT(t, cim, nil), sameFiles); diff != "" {
		t.Errorf("with the suffix (-without +with):\n%s", diff)
	}
	if out := rewriteNT(t, cim, unchanged); !bytes.Equal(cim, out) {
		t.Error("written again with different bytes")
	}
	if out := rewriteNT(t, cim, (*layer.Entry).Forget); !bytes.Equal(plain, out) {
		t.Error("encoded anew with the suffix")
	}
}

// TestNTSizes reads layers in pieces of all kinds, so that headers lie whole in
// memory and do not.
func TestNTSizes(t *testing.T) {
	t.Parallel()
	var files []winFile
	for i := range 40 {
		files = append(files, winFile{
			name: fmt.Sprintf("Files/%d", i), attrs: 0x20, sd: fileSD, content: strings.Repeat("c", i*i*37), streams: []string{"s"},
		})
	}
	files = append([]winFile{{name: "Files", attrs: 0x10}, {name: "Hives", attrs: 0x10}}, files...)
	in := export(t, files, "")
	want := readNT(t, in, nil)
	for _, n := range []int{1, 7, 512, 1000, 1536, 4096, 100_000} {
		var out bytes.Buffer
		var got []file
		r := layer.ReadOptions{Encoding: layer.NT}.NewReader(&pieces{in, n})
		w := layer.NewWriter(&out)
		for e, err := range r.All() {
			must(t, err)
			content, err := io.ReadAll(r)
			must(t, err)
			got = append(got, file{e, content})
			must(t, w.Write(e, bytes.NewReader(content)))
		}
		trailer, err := r.Trailer()
		must(t, err)
		must(t, w.CloseWith(trailer))
		if diff := cmp.Diff(want, got, sameFiles); diff != "" {
			t.Errorf("in pieces of %d (-whole +pieces):\n%s", n, diff)
		}
		if !bytes.Equal(in, out.Bytes()) {
			t.Errorf("in pieces of %d: written again with different bytes", n)
		}
	}
}

type pieces struct {
	rest []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:min(p.n, len(p.rest))])
	p.rest = p.rest[n:]
	return n, nil
}

// TestNTFields checks what is made of a header.
func TestNTFields(t *testing.T) {
	t.Parallel()
	files := readNT(t, export(t, baseLayer, ""), nil)
	by := func(name, stream string) *layer.Entry {
		i := slices.IndexFunc(files, func(f file) bool { return f.Name == name && f.Stream == stream })
		if i < 0 {
			t.Fatalf("no entry %q", name)
		}
		return files[i].Entry
	}
	junction := by("Files/Documents and Settings", "")
	if target, mount := linkOf(t, junction); junction.Kind != layer.Symlink || junction.Link != `C:\Users` || target != `C:\Users` || !mount {
		t.Errorf("junction: %+v, %+v", junction, junction.NT)
	}
	link := by("Files/Users/All Users", "")
	if _, mount := linkOf(t, link); mount || link.NT.Attributes != 0x2416 {
		t.Errorf("directory symlink: %+v, %+v", link, link.NT)
	}
	stream := by("Files/Windows/System32/readme.txt", "Zwei ü")
	if stream.Kind != layer.Stream || stream.Size != 7 || stream.NT == nil {
		t.Errorf("stream: %+v", stream)
	}
	dll := by("Files/Windows/System32/kernel32.dll", "")
	var names []string
	for _, ea := range dll.NT.EA {
		names = append(names, ea.Name)
	}
	if want := []string{"$CI.CATALOGHINT", "$KERNEL.PURGE.ESBCACHE", "A"}; !slices.Equal(names, want) {
		t.Errorf("EAs %q, want %q", names, want)
	}
	if sd := base64.StdEncoding.EncodeToString(dll.NT.SecurityDescriptor); sd != fileSD {
		t.Errorf("descriptor %s", sd)
	}
	if want := time.Unix(1_600_000_000, 0); !dll.NT.CreationTime.Equal(want) {
		t.Errorf("created %s, want %s", dll.NT.CreationTime, want)
	}
	if got, want := by("Files/Users", "").NT.CreationTime, time.Unix(0, -100); !got.Equal(want) {
		t.Errorf("created %s, want %s", got, want)
	}
	if got := maps.Collect(maps.All(dll.Records)); len(got) > 0 {
		t.Errorf("records left over: %q", got)
	}
}

// randomLayer makes a layer of n objects.
func randomLayer(rng *rand.Rand, n int) []winFile {
	files := []winFile{{name: "Files", attrs: 0x10, sd: dirSD}, {name: "Hives", attrs: 0x10}}
	dirs, plain := []string{"Files"}, []string{}
	for i := range n {
		name := fmt.Sprintf("%s/%s%d", dirs[rng.IntN(len(dirs))], strings.Repeat([]string{"n", "ü", "名", "𝔘", "x y"}[rng.IntN(5)], rng.IntN(30)), i)
		f := winFile{name: name, attrs: rng.Uint32() &^ 0x410, sd: []string{"", dirSD, fileSD}[rng.IntN(3)]}
		switch kind := rng.IntN(10); {
		case kind < 2:
			f.attrs |= 0x10
			dirs = append(dirs, name)
		case kind == 2:
			f.attrs |= 0x400 | rng.Uint32()&0x10
			f.link, f.mount = strings.Repeat(`..\dir`, 1+rng.IntN(30)), rng.IntN(2) == 0
		case kind == 3 && len(plain) > 0:
			f.sd, f.hard = "", plain[rng.IntN(len(plain))]
		case kind == 4:
			dir, base := path.Split(name)
			f = winFile{name: dir + ".wh." + base, gone: true}
		default:
			f.content = strings.Repeat("c", rng.IntN(3)*rng.IntN(2000))
			plain = append(plain, name)
		}
		if f.hard == "" && !f.gone && rng.IntN(5) == 0 {
			f.streams = []string{"Zone.Identifier", "ü" + strings.Repeat("s", rng.IntN(60))}[:1+rng.IntN(2)]
			f.eas = map[string]string{"EA": strings.Repeat("e", rng.IntN(100)), "B": "b"}
		}
		files = append(files, f)
	}
	return files
}

// TestNTRandom is TestNTExported with layers made at random.
func TestNTRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		in := export(t, randomLayer(rand.New(rand.NewPCG(seed, 1)), 1500), "")
		readNT(t, in, nil)
		if out := rewriteNT(t, in, unchanged); !bytes.Equal(in, out) {
			t.Errorf("seed %d: written again with different bytes at %d", seed, firstDifference(in, out))
		}
		if out := rewriteNT(t, in, (*layer.Entry).Forget); !bytes.Equal(in, out) {
			i := firstDifference(in, out)
			t.Errorf("seed %d: encoded anew with different bytes at %d:\n%q\n%q", seed, i, window(in, i), window(out, i))
		}
	}
}

// TestNTTruncated cuts a layer everywhere: that is noticed, or what is there
// stays as it is.
func TestNTTruncated(t *testing.T) {
	t.Parallel()
	in := export(t, diffLayer, "")
	for cut := 0; cut < len(in); cut += 256 {
		n := 0
		var failed error
		r := layer.ReadOptions{Encoding: layer.NT}.NewReader(bytes.NewReader(in[:cut]))
		for e, err := range r.All() {
			if failed = err; err == nil && !e.Implied {
				n++
			}
		}
		if failed == nil && !bytes.Equal(in[:cut], rewriteNT(t, in[:cut], unchanged)) {
			t.Errorf("cut at %d after %d entries: written again with different bytes", cut, n)
		}
		if failed != nil && !isClass(failed, outcomes["cut"]) {
			t.Errorf("cut at %d: %v", cut, failed)
		}
	}
}

// TestNTSparse reads a sparse map, and writes zeros: Windows' layers have none.
func TestNTSparse(t *testing.T) {
	t.Parallel()
	e := &layer.Entry{
		Name: "Files/sparse", Size: 10_000, NT: &ntfs.Meta{Attributes: ntfs.AttrSparse},
		Data: []layer.Extent{{Offset: 4096, Length: 512}, {Offset: 8192, Length: 1808}}, ModTime: time.Unix(0, 0).UTC(),
	}
	for name, content := range map[string]io.Reader{
		"stream": struct{ io.Reader }{bytes.NewReader(sparseContent())}, "at offsets": bytes.NewReader(sparseContent()),
	} {
		var out bytes.Buffer
		w := layer.NewWriter(&out)
		must(t, w.Write(e, content))
		must(t, w.Close())
		files := readNT(t, out.Bytes(), func(layer.Warning) {})
		if f := files[1]; f.Data != nil || !bytes.Equal(f.Content, sparseContent()) || f.NT.Attributes != ntfs.AttrSparse {
			t.Errorf("%s: %+v", name, f.Entry)
		}
	}
	var in bytes.Buffer
	w := layer.NewWriter(&in)
	posix := *e
	posix.NT = nil
	must(t, w.Write(&posix, bytes.NewReader(sparseContent())))
	must(t, w.Close())
	files := readNT(t, in.Bytes(), func(layer.Warning) {})
	if f := files[1]; len(f.Data) != 2 || !bytes.Equal(f.Content, sparseContent()) {
		t.Errorf("read: %+v", f.Entry)
	}
	if out := rewriteNT(t, in.Bytes(), unchanged); !bytes.Equal(in.Bytes(), out) {
		t.Error("written again with different bytes")
	}
}

// TestNTUnlimited lifts the limit on descriptors.
func TestNTUnlimited(t *testing.T) {
	t.Parallel()
	sd := base64.StdEncoding.EncodeToString(make([]byte, 20))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{
		{Name: "Files", Typeflag: tar.TypeDir},
		{Name: "Hives", Typeflag: tar.TypeDir},
		{Name: "Files/f", Format: tar.FormatPAX, PAXRecords: map[string]string{"MSWINDOWS.rawsd": sd}},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := layer.ReadOptions{Encoding: layer.NT, Limits: layer.Limits{XattrBytes: -1}}.NewReader(&b)
	for e, err := range r.All() {
		if errdefs.IsResourceExhausted(err) {
			t.Fatalf("%v: %v", e, err)
		}
	}
}

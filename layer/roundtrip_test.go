package layer_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hostcompute/hcs/layer"
)

// file is an entry with its content.
type file struct {
	*layer.Entry
	Content []byte
}

func readAll(t testing.TB, in []byte) []file {
	t.Helper()
	var all []file
	r := layer.NewReader(bytes.NewReader(in), layer.Limits{})
	for e, err := range r.All() {
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, file{e, content})
	}
	return all
}

// fresh copies an entry without its memory of where it was read.
func fresh(e *layer.Entry) *layer.Entry {
	var c layer.Entry
	from, to := reflect.ValueOf(e).Elem(), reflect.ValueOf(&c).Elem()
	for i := range from.NumField() {
		if from.Type().Field(i).IsExported() {
			to.Field(i).Set(from.Field(i))
		}
	}
	return &c
}

func writeFresh(t testing.TB, files []file) []byte {
	t.Helper()
	var out bytes.Buffer
	w := layer.NewWriter(&out)
	for _, f := range files {
		if err := w.Write(fresh(f.Entry), bytes.NewReader(f.Content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

var sameFiles = cmp.Options{cmpopts.IgnoreUnexported(layer.Entry{}), cmp.Comparer(bytes.Equal)}

// checkRoundTrip checks that a layer stays byte for byte what it is when it is
// read and written, and entry for entry when it is encoded anew.
func checkRoundTrip(t testing.TB, in []byte) []file {
	t.Helper()
	if out := rewrite(t, in); !bytes.Equal(in, out) {
		t.Errorf("written again: %d bytes, which differ from the %d read at %d", len(out), len(in), firstDifference(in, out))
	}
	files := readAll(t, in)
	anew := writeFresh(t, files)
	if diff := cmp.Diff(files, readAll(t, anew), sameFiles); diff != "" {
		t.Errorf("encoded anew (-was +is):\n%s", diff)
	}
	if again := writeFresh(t, files); !bytes.Equal(anew, again) {
		t.Error("encoded anew twice, with different bytes")
	}
	checkByArchiveTar(t, files, anew)
	return files
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// checkByArchiveTar checks that archive/tar reads the same from our bytes.
func checkByArchiveTar(t testing.TB, files []file, in []byte) {
	t.Helper()
	tr := tar.NewReader(bytes.NewReader(in))
	for _, f := range files {
		h, err := tr.Next()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind < layer.Whiteout && path.Clean(h.Name) != f.Name || h.Size != f.Size ||
			h.Uid != int(f.UID) || h.Gid != int(f.GID) || h.Mode != int64(f.Mode) || !h.ModTime.Equal(f.ModTime) ||
			h.Linkname != f.Link || !bytes.Equal(content, f.Content) {
			t.Errorf("archive/tar reads %+v from what is\n%+v", h, f.Entry)
		}
	}
	if _, err := tr.Next(); err != io.EOF {
		t.Errorf("archive/tar at the end: %v", err)
	}
}

// makeTree makes a directory with everything that archiving programs know.
// Devices and foreign owners need root and are left out without it.
func makeTree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	long := strings.Repeat("long-directory-name/", 12)
	for name, content := range map[string]string{
		"small": "hello", "empty": "", "block": strings.Repeat("b", 512), "big": strings.Repeat("0123456789", 100_000),
		"ü/é": "utf-8", "latin-\xe9": "not utf-8", long + "file": "far away",
		strings.Repeat("n", 100): "100", strings.Repeat("n", 101): "101", strings.Repeat("n", 250): "250",
		strings.Repeat("d", 90) + "/" + strings.Repeat("e", 60): "splits",
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o640))
	}
	must(t, os.Link(filepath.Join(dir, "small"), filepath.Join(dir, "z-hard")))
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "symlink")))
	must(t, os.Symlink(strings.Repeat("t/", 120)+"t", filepath.Join(dir, "symlink-long")))
	must(t, os.Chmod(filepath.Join(dir, "empty"), 0o755|os.ModeSetuid|os.ModeSticky))
	must(t, os.Chtimes(filepath.Join(dir, "big"), time.Unix(5, 6), time.Unix(1234567890, 123456789)))
	must(t, os.Chtimes(filepath.Join(dir, "block"), time.Unix(-5, 0), time.Unix(-77, 0)))
	makeSparse(t, filepath.Join(dir, "sparse-end"), 1<<20, 0, 512<<10)
	makeSparse(t, filepath.Join(dir, "sparse-mid"), 1<<20, 300<<10, 1<<20-100)
	makeSparse(t, filepath.Join(dir, "sparse-all"), 1<<20)
	makeSparse(t, filepath.Join(dir, "sparse-many"), 4<<20, func() (at []int64) {
		for off := int64(64 << 10); off < 4<<20; off += 128 << 10 {
			at = append(at, off)
		}
		return at
	}()...)
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// makeSparse makes a file of holes with a few bytes at each offset.
func makeSparse(t testing.TB, name string, size int64, at ...int64) {
	t.Helper()
	f, err := os.Create(name)
	must(t, err)
	must(t, f.Truncate(size))
	for _, off := range at {
		_, err := f.WriteAt([]byte("data"), off)
		must(t, err)
	}
	must(t, f.Close())
}

// run runs a program, and skips the test if there is none.
func run(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, &stderr)
	}
	return out
}

func TestRoundTripOfOtherPrograms(t *testing.T) {
	t.Parallel()
	dir := makeTree(t)
	devices := []string{}
	if os.Geteuid() == 0 {
		makeDevices(t, dir)
		devices = append(devices, "null", "disk", "pipe")
	}
	run(t, "tar", "--version")
	simple := append([]string{"-C", dir, "small", "empty", "big", "symlink", "z-hard", "ü"}, devices...) // no early times, no long names
	all := []string{"-C", dir, "."}
	for _, c := range []struct {
		name    string
		program string
		args    []string
	}{
		{"gnu", "tar", append([]string{"-cf-", "--format=gnu"}, all...)},
		{"gnu sparse", "tar", append([]string{"-cf-", "--format=gnu", "--sparse"}, all...)},
		{"oldgnu sparse", "tar", append([]string{"-cf-", "--format=oldgnu", "--sparse"}, all...)},
		{"pax", "tar", append([]string{"-cf-", "--format=pax"}, all...)},
		{"pax xattrs", "tar", append([]string{"-cf-", "--format=pax", "--xattrs", "--xattrs-include=*"}, all...)},
		{"pax sparse 0.0", "tar", append([]string{"-cf-", "--format=pax", "--sparse", "--sparse-version=0.0"}, all...)},
		{"pax sparse 0.1", "tar", append([]string{"-cf-", "--format=pax", "--sparse", "--sparse-version=0.1"}, all...)},
		{"pax sparse 1.0", "tar", append([]string{"-cf-", "--format=pax", "--sparse", "--sparse-version=1.0"}, all...)},
		{"pax global", "tar", append([]string{"-cf-", "--format=pax", "--pax-option=globexthdr.name=g,comment=hi"}, all...)},
		{"ustar", "tar", append([]string{"-cf-", "--format=ustar"}, simple...)},
		{"v7", "tar", append([]string{"-cf-", "--format=v7"}, simple[:8]...)},
		{"large numbers", "tar", append([]string{"-cf-", "--format=gnu", "--owner=a:4000000000", "--group=b:4000000001"}, simple...)},
		{"large numbers pax", "tar", append([]string{"-cf-", "--format=pax", "--owner=a:4000000000", "--group=b:4000000001"}, simple...)},
		{"record size", "tar", append([]string{"-cf-", "--record-size=102400"}, simple...)},
		{"bsdtar pax", "bsdtar", append([]string{"-cf-", "--format=pax"}, all...)},
		{"bsdtar gnutar", "bsdtar", append([]string{"-cf-", "--format=gnutar"}, all...)},
		{"bsdtar ustar", "bsdtar", append([]string{"-cf-", "--format=ustar"}, simple...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := run(t, c.program, c.args...)
			files := checkRoundTrip(t, in)
			for _, f := range files {
				if f.Kind == layer.File {
					checkContent(t, dir, f)
				}
			}
			if strings.Contains(c.name, "sparse") && !slices.ContainsFunc(files, func(f file) bool { return f.Data != nil }) {
				t.Error("no sparse file among them")
			}
		})
	}
}

func checkContent(t testing.TB, dir string, f file) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(dir, f.Name))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, f.Content) {
		t.Errorf("content of %q differs", f.Name)
	}
	pos := int64(0)
	for _, x := range append(slices.Clone(f.Data), layer.Extent{Offset: f.Size}) {
		if f.Data != nil && len(bytes.Trim(want[pos:x.Offset], "\x00")) > 0 {
			t.Errorf("%q has data in what is told to be a hole: %d to %d", f.Name, pos, x.Offset)
		}
		pos = x.Offset + x.Length
	}
}

// TestExtractedByOtherPrograms lets GNU tar and bsdtar unpack what was encoded
// here, and packs it again to compare.
func TestExtractedByOtherPrograms(t *testing.T) {
	t.Parallel()
	dir := makeTree(t)
	run(t, "tar", "--version")
	in := run(t, "tar", "-cf-", "--format=pax", "--sparse", "-C", dir, ".")
	files := readAll(t, in)
	archive := filepath.Join(t.TempDir(), "anew.tar")
	must(t, os.WriteFile(archive, writeFresh(t, files), 0o600))
	for _, program := range []string{"tar", "bsdtar"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			to := t.TempDir()
			run(t, program, "-xpf", archive, "-C", to)
			again := readAll(t, run(t, "tar", "-cf-", "--format=pax", "--sparse", "-C", to, "."))
			byName := func(fs []file) map[string]file {
				m := map[string]file{}
				for _, f := range fs {
					c := *f.Entry
					c.Records, c.AccessTime, c.ChangeTime, c.Data = nil, time.Time{}, time.Time{}, nil
					if c.Kind == layer.Hardlink || f.Name == "small" || f.Name == "z-hard" {
						continue // which of the names is the link depends on the directory's order
					}
					if c.Kind == layer.Dir {
						c.ModTime = time.Time{}
					}
					m[c.Name] = file{&c, f.Content}
				}
				return m
			}
			if diff := cmp.Diff(byName(files), byName(again), sameFiles); diff != "" {
				t.Errorf("unpacked by %s (-ours +theirs):\n%s", program, diff)
			}
		})
	}
}

// TestRoundTripOfArchiveTar covers what Go programs write: Docker, BuildKit,
// containerd.
func TestRoundTripOfArchiveTar(t *testing.T) {
	t.Parallel()
	for _, format := range []tar.Format{tar.FormatUnknown, tar.FormatPAX, tar.FormatGNU, tar.FormatUSTAR} {
		t.Run(format.String(), func(t *testing.T) {
			t.Parallel()
			checkRoundTrip(t, archiveTar(t, format))
		})
	}
}

func archiveTar(t testing.TB, format tar.Format) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	at := time.Unix(1700000000, 0)
	if format == tar.FormatPAX {
		at = at.Add(123456789)
	}
	for i, h := range []tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "d/f", Typeflag: tar.TypeReg, Size: 1000, Uname: "root", Gname: "root"},
		{Name: "d/.wh.gone", Typeflag: tar.TypeReg},
		{Name: "d/.wh..wh..opq", Typeflag: tar.TypeReg},
		{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "f"},
		{Name: "d/h", Typeflag: tar.TypeLink, Linkname: "d/f"},
		{Name: "d/c", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		{Name: "d/b", Typeflag: tar.TypeBlock, Devmajor: 259, Devminor: 1000000},
		{Name: "d/p", Typeflag: tar.TypeFifo},
		{Name: "last", Typeflag: tar.TypeReg, Size: 512},
	} {
		h.Format, h.ModTime, h.Uid, h.Gid = format, at, i, 1000+i
		if format == tar.FormatPAX || format == tar.FormatUnknown {
			h.PAXRecords = map[string]string{
				"SCHILY.xattr.user.b": "\x00\x01\xff=\n", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02",
				"VENDOR.thing": "kept", "comment": "ü",
			}
		}
		if format == tar.FormatPAX {
			h.AccessTime, h.ChangeTime = at.Add(time.Second), at.Add(time.Minute)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte{byte(i)}, int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	must(t, w.Close())
	return buf.Bytes()
}

// TestRoundTripAnew encodes entries that no other program made.
func TestRoundTripAnew(t *testing.T) {
	t.Parallel()
	at := time.Unix(1<<34, 1).UTC()
	files := []file{
		{Entry: &layer.Entry{Name: ".", Kind: layer.Dir, Mode: 0o755, ModTime: at}},
		{Entry: &layer.Entry{Name: ".", Kind: layer.Opaque, ModTime: at}},
		{Entry: &layer.Entry{Name: "a/b", Kind: layer.Whiteout, ModTime: at}},
		{Entry: &layer.Entry{Name: "x", Xattrs: map[string]string{"user.empty": "", "user.a=b%c": "\x00", "user.nl": "\n"}, ModTime: at}},
		{Entry: &layer.Entry{Name: "early", ModTime: time.Unix(-1, 999999999).UTC()}},
		{Entry: &layer.Entry{Name: "earlier", ModTime: time.Unix(-100, 1).UTC(), AccessTime: time.Unix(-1, 5).UTC()}},
		{Entry: &layer.Entry{Name: "owner", UID: 1<<32 - 2, GID: 1 << 21, ModTime: at}},
		{Entry: &layer.Entry{Name: "dev", Kind: layer.BlockDevice, Major: 1<<32 - 1, Minor: 1 << 21, ModTime: at}},
		{Entry: &layer.Entry{Name: "raw\xff", Kind: layer.Symlink, Link: "\xfe/../x", ModTime: at}},
		{Entry: &layer.Entry{Name: "hard", Kind: layer.Hardlink, Link: "raw\xff", ModTime: at}},
		{Entry: &layer.Entry{Name: "hole", Size: 1 << 20, Data: []layer.Extent{}, ModTime: at}, Content: make([]byte, 1<<20)},
		{Entry: &layer.Entry{Name: "none", Data: []layer.Extent{}, ModTime: at}},
		{Entry: &layer.Entry{Name: "sparse", Size: 10_000, Data: []layer.Extent{{Offset: 4096, Length: 512}, {Offset: 8192, Length: 1808}}, ModTime: at}, Content: sparseContent()},
		{Entry: &layer.Entry{Name: "records", Records: map[string]string{"A.b": "", "uname": "root"}, ModTime: at}},
		{Entry: &layer.Entry{Name: strings.Repeat("x/", 127) + "x", Kind: layer.Dir, ModTime: at}},
	}
	for _, n := range []int{99, 100, 101, 154, 155, 156, 157, 255, 256, 257, 4000} {
		for _, cut := range []int{1, 50, 99, 100, 101, 150, 155, 156} {
			name := []byte(strings.Repeat("n", n))
			if cut < n-1 {
				name[cut] = '/'
			}
			files = append(files, file{Entry: &layer.Entry{Name: string(name), ModTime: at}})
		}
	}
	anew := writeFresh(t, files)
	if diff := cmp.Diff(files, readAll(t, anew), sameFiles); diff != "" {
		t.Errorf("read again (-was +is):\n%s", diff)
	}
	if out := rewrite(t, anew); !bytes.Equal(anew, out) {
		t.Error("written again with different bytes")
	}
	if !maps.Equal(readAll(t, anew)[3].Xattrs, files[3].Xattrs) {
		t.Error("attributes differ")
	}
}

func sparseContent() []byte {
	b := make([]byte, 10_000)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := 4096; i < 4608; i++ {
		b[i] = byte(rng.Uint32()) | 1
	}
	for i := 8192; i < 10_000; i++ {
		b[i] = byte(rng.Uint32()) | 1
	}
	return b
}

// TestChangedEntry checks that a change of any field is written, although the
// entry remembers its header.
func TestChangedEntry(t *testing.T) {
	t.Parallel()
	in := archiveTar(t, tar.FormatPAX)
	for name, change := range map[string]func(*layer.Entry){
		"name":    func(e *layer.Entry) { e.Name = "other" },
		"mode":    func(e *layer.Entry) { e.Mode = 0o600 },
		"owner":   func(e *layer.Entry) { e.UID = 77 },
		"time":    func(e *layer.Entry) { e.ModTime = e.ModTime.Add(1) },
		"xattr":   func(e *layer.Entry) { e.Xattrs["user.b"] = "other" },
		"no atim": func(e *layer.Entry) { e.AccessTime = time.Time{} },
		"record":  func(e *layer.Entry) { delete(e.Records, "VENDOR.thing") },
		"sparse":  func(e *layer.Entry) { e.Data = []layer.Extent{{Offset: 0, Length: 1000}} },
		"size":    func(e *layer.Entry) { e.Size = 900; e.Data = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := readAll(t, in)
			change(files[1].Entry)
			files[1].Content = files[1].Content[:files[1].Size]
			var out bytes.Buffer
			w := layer.NewWriter(&out)
			for _, f := range files {
				must(t, w.Write(f.Entry, bytes.NewReader(f.Content)))
			}
			must(t, w.Close())
			if diff := cmp.Diff(files, readAll(t, out.Bytes()), sameFiles); diff != "" {
				t.Errorf("read again (-was +is):\n%s", diff)
			}
		})
	}
}

func TestWriterRefuses(t *testing.T) {
	t.Parallel()
	for _, e := range []layer.Entry{
		{Name: ""},
		{Name: "../x"},
		{Name: "/x"},
		{Name: "a/"},
		{Name: "."},
		{Name: ".wh.x"},
		{Name: ".wh..wh.plnk", Kind: layer.Dir},
		{Name: "a", Kind: 99},
		{Name: "a", Kind: layer.Symlink},
		{Name: "a", Kind: layer.Hardlink, Link: "a"},
		{Name: "a", Kind: layer.Hardlink, Link: "./b"},
		{Name: "a", Kind: layer.Dir, Size: 1},
		{Name: "a", Size: -1},
		{Name: "a", Size: 1}, // without content
		{Name: "a", UID: 1<<32 - 1},
		{Name: "a", Size: 10, Data: []layer.Extent{{Offset: 5, Length: 6}}},
		{Name: "a", Size: 10, Data: []layer.Extent{{Offset: 5, Length: 1}, {Offset: 5, Length: 1}}},
		{Name: "a", Records: map[string]string{"a=b": ""}},
		{Name: "a", Records: map[string]string{"path": "x"}},
		{Name: "a", Xattrs: map[string]string{"": "x"}},
	} {
		if err := layer.NewWriter(io.Discard).Write(&e, nil); err == nil {
			t.Errorf("accepted %+v", e)
		}
	}
}

// TestTruncated cuts a layer at every block: only between entries may that
// pass unnoticed, as far as tar goes; the blob's digest is there for the rest.
func TestTruncated(t *testing.T) {
	t.Parallel()
	in := archiveTar(t, tar.FormatPAX)
	ends := map[int]bool{}
	r := layer.NewReader(bytes.NewReader(in), layer.Limits{})
	var whole int
	for _, err := range r.All() {
		must(t, err)
		whole++
	}
	for cut := 0; cut < len(in); cut += 512 {
		var n int
		var failed error
		for _, err := range layer.NewReader(bytes.NewReader(in[:cut]), layer.Limits{}).All() {
			if failed = err; err == nil {
				n++
			}
		}
		if failed == nil {
			ends[n] = true
			if got := rewrite(t, in[:cut]); !bytes.Equal(got, in[:cut]) {
				t.Errorf("cut at %d: written again with different bytes", cut)
			}
		} else if class := outcomes["cut"]; !isClass(failed, class) {
			t.Errorf("cut at %d: %v", cut, failed)
		}
	}
	if len(ends) != whole+1 {
		t.Errorf("%d cuts between entries, want %d: %v", len(ends), whole+1, slices.Sorted(maps.Keys(ends)))
	}
	for _, odd := range []int{1, 511, 513, len(in) - 1100} {
		for _, err := range layer.NewReader(bytes.NewReader(in[:odd]), layer.Limits{}).All() {
			if err != nil && !isClass(err, outcomes["cut"]) {
				t.Errorf("cut at %d: %v", odd, err)
			}
		}
	}
}

func TestSparseIsNotExpanded(t *testing.T) {
	t.Parallel()
	const huge = 1 << 39
	e := &layer.Entry{Name: "huge", Size: huge, Data: []layer.Extent{{Offset: huge - 512, Length: 512}}}
	var in, out bytes.Buffer
	w := layer.NewWriter(&in)
	data := bytes.Repeat([]byte("x"), 512)
	must(t, w.Write(e, offsetReader{data, huge - 512}))
	must(t, w.Close())
	r := layer.NewReader(bytes.NewReader(in.Bytes()), layer.Limits{})
	w = layer.NewWriter(&out)
	for e, err := range r.All() {
		must(t, err)
		must(t, w.Write(e, r)) // without reading 512 GiB of zeros
	}
	must(t, w.Close())
	if !bytes.Equal(in.Bytes(), out.Bytes()) {
		t.Error("written again with different bytes")
	}
	r = layer.NewReader(&out, layer.Limits{})
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	got := &recorder{}
	n, err := r.WriteDataAt(got)
	if err != nil || n != 512 || got.at != huge-512 || !bytes.Equal(got.data, data) {
		t.Errorf("WriteDataAt = %d, %v at %d", n, err, got.at)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after it: %v", err)
	}
}

// offsetReader is data at an offset of an endless file, and fails elsewhere.
type offsetReader struct {
	data []byte
	at   int64
}

func (o offsetReader) Read([]byte) (int, error) { return 0, fmt.Errorf("read as a stream") }

func (o offsetReader) ReadAt(p []byte, off int64) (int, error) {
	if off < o.at || off+int64(len(p)) > o.at+int64(len(o.data)) {
		return 0, fmt.Errorf("read of a hole at %d", off)
	}
	return copy(p, o.data[off-o.at:]), nil
}

type recorder struct {
	data []byte
	at   int64
}

func (r *recorder) WriteAt(p []byte, off int64) (int, error) {
	if r.data == nil {
		r.at = off
	}
	r.data = append(r.data, p...)
	return len(p), nil
}

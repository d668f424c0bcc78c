package rootfs_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// view says what of a tree is looked at.
type view struct {
	times   bool // modification times, to the nanosecond
	holes   bool // where files have data
	marks   bool // overlayfs's own attributes
	content bool // what files hold as text, instead of its digest

	skip string // a name that is not looked at, nor what is below it
}

// listing describes everything below dir, and dir itself as ".", a line for each name.
func listing(t testing.TB, dir string, v view) map[string]string {
	t.Helper()
	root, err := inroot.Open(dir)
	must(t, err)
	defer func() { must(t, root.Close()) }()
	l := lister{view: v, t: t, lines: make(map[string]string), links: make(map[[2]uint64]string)}
	top, err := root.OpenDir(".")
	must(t, err)
	defer func() { must(t, top.Close()) }()
	attrs, err := top.Self().Xattrs()
	must(t, err)
	l.lines["."] = l.line(".", top.Stat(), attrs)
	l.dir(top, "")
	return l.lines
}

type lister struct {
	view
	t     testing.TB
	lines map[string]string
	links map[[2]uint64]string
}

func (l *lister) dir(dir *inroot.Dir, prefix string) {
	names, err := dir.Names()
	must(l.t, err)
	for _, last := range names {
		name := path.Join(prefix, last)
		if name == l.skip {
			continue
		}
		st, err := dir.Lstat(last)
		must(l.t, err)
		attrs, err := dir.Xattrs(last)
		must(l.t, err)
		line := l.line(name, &st, attrs)
		switch st.Type() {
		case sys.ModeSymlink:
			target, err := dir.Readlink(last)
			must(l.t, err)
			line += " -> " + target
		case sys.ModeRegular:
			line += l.file(dir, last)
		}
		l.lines[name] = line
		if st.IsDir() {
			sub, err := dir.OpenDir(last)
			must(l.t, err)
			l.dir(sub, name)
			must(l.t, sub.Close())
		}
	}
}

func (l *lister) line(name string, st *sys.Stat, attrs map[string]string) string {
	kinds := map[uint32]string{
		sys.ModeRegular: "file", sys.ModeDir: "dir", sys.ModeSymlink: "symlink", sys.ModeChar: "char",
		sys.ModeBlock: "block", sys.ModeFIFO: "fifo", sys.ModeSocket: "socket",
	}
	var s strings.Builder
	s.WriteString(fmt.Sprintf("%s %04o %d:%d", kinds[st.Type()], st.Mode&sys.ModePerm, st.UID, st.GID))
	if st.Type() == sys.ModeChar || st.Type() == sys.ModeBlock {
		s.WriteString(fmt.Sprintf(" dev %d:%d", st.Major, st.Minor))
	}
	if !st.IsDir() && st.Nlink > 1 {
		id := [2]uint64{st.Dev, st.Ino}
		if first, known := l.links[id]; known {
			s.WriteString(" same as " + first)
		} else {
			l.links[id] = name
		}
	}
	for _, attr := range slices.Sorted(maps.Keys(attrs)) {
		if l.marks || !strings.HasPrefix(attr, "trusted.overlay.") && !strings.HasPrefix(attr, "user.overlay.") {
			s.WriteString(fmt.Sprintf(" %s=%q", attr, attrs[attr]))
		}
	}
	if l.times {
		s.WriteString(" " + st.MTime.UTC().Format("2006-01-02T15:04:05.000000000"))
	}
	return s.String()
}

func (l *lister) file(dir *inroot.Dir, last string) string {
	file, err := dir.Open(last)
	must(l.t, err)
	defer func() { must(l.t, file.Close()) }()
	data, err := io.ReadAll(file)
	must(l.t, err)
	s := fmt.Sprintf(" %d %.4x", len(data), sha256.Sum256(data))
	if l.content {
		s = fmt.Sprintf(" %q", data)
	}
	for offset, size := int64(0), int64(len(data)); l.holes; {
		start, end, err := sys.NextData(int(file.Fd()), offset, size)
		must(l.t, err)
		if start >= size {
			break
		}
		s += fmt.Sprintf(" [%d,%d)", start, end)
		offset = end
	}
	return s
}

// compare reports where two trees differ.
func compare(t testing.TB, got, want map[string]string) {
	t.Helper()
	names := slices.Collect(maps.Keys(got))
	for name := range want {
		if _, both := got[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	wrong := 0
	for _, name := range names {
		if got[name] == want[name] {
			continue
		}
		if wrong++; wrong > 20 {
			t.Error("and more")
			return
		}
		t.Errorf("%s\n   is: %s\n want: %s", name, orNothing(got[name]), orNothing(want[name]))
	}
}

func orNothing(s string) string {
	if s == "" {
		return "(nothing)"
	}
	return s
}

// tarOf writes a layer, header by header; the content of a file is in the header's Gname, which is not written.
func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		content := h.Gname
		h.Gname = ""
		if h.Typeflag == 0 || h.Typeflag == tar.TypeReg {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
		} else {
			content = ""
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		h.Uid, h.Gid = h.Uid+os.Geteuid(), h.Gid+os.Getegid()
		must(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(content))
		must(t, err)
	}
	must(t, w.Close())
	return buf.Bytes()
}

type tarHeader = tar.Header

func file(name, content string) tar.Header { return tar.Header{Name: name, Gname: content} }
func dir(name string) tar.Header           { return tar.Header{Name: name, Typeflag: tar.TypeDir} }
func wh(name string) tar.Header {
	return tar.Header{Name: path.Join(path.Dir(name), ".wh."+path.Base(name))}
}
func opq(name string) tar.Header { return tar.Header{Name: path.Join(name, ".wh..wh..opq")} }
func symlink(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}
}

func hardlink(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}
}

func fifo(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeFifo} }

func char(name string, major, minor int64) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeChar, Devmajor: major, Devminor: minor}
}

// apply applies a layer to the directory dst.
func apply(t testing.TB, dst string, stream io.Reader, opts rootfs.ApplyOptions) (rootfs.Stats, error) {
	t.Helper()
	root, err := inroot.Open(dst)
	must(t, err)
	defer func() { must(t, root.Close()) }()
	return rootfs.Apply(t.Context(), root, layer.NewReader(stream, layer.Limits{}), opts)
}

// opener makes a blob of bytes.
func opener(data []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

func diffIDOf(data []byte) digest.Digest { return digest.FromBytes(data) }

func newStore(t testing.TB) (*rootfs.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := rootfs.Open(rootfs.Config{Dir: dir, UserXattr: os.Geteuid() != 0})
	must(t, err)
	return s, dir
}

// nothingLeft fails if the store's layer directory holds anything.
func nothingLeft(t testing.TB, dir string) {
	t.Helper()
	for _, sub := range []string{"layers", "layers/.lock"} {
		entries, err := os.ReadDir(path.Join(dir, sub))
		must(t, err)
		for _, e := range entries {
			if e.Name() != ".lock" && e.Name() != ".empty" {
				t.Errorf("left behind: %s/%s", sub, e.Name())
			}
		}
	}
}

// oneLine fails unless err is of the class and a single line that has all the words.
func oneLine(t testing.TB, err, class error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error; want one with %q", words)
		return
	}
	if class != nil && !errors.Is(err, class) {
		t.Errorf("error %q is not of the class %q", err, class)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q has more than one line", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

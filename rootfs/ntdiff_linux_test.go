package rootfs_test

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/rootfs"
)

const (
	topSD     = "O:SYG:SYD:(A;OICI;FA;;;SY)(A;OICI;0x1200a9;;;BU)" // of directories
	fileSD    = "O:SYG:SYD:(A;;FA;;;SY)"
	madeFile  = "O:BAG:SYD:AI(A;ID;FA;;;SY)(A;ID;0x1200a9;;;BU)" // what inherits from topSD
	madeDir   = "O:BAG:SYD:AI(A;OICIID;FA;;;SY)(A;OICIID;0x1200a9;;;BU)"
	someTime  = "1500000000"
	ancient   = 1400000000
	shortText = "[ZoneTransfer]"
)

// longText makes metadata that does not fit into an attribute.
var longText = strings.Repeat("stream ", 1000)

// ntStack imports two layers, of which the files are told by ntBase and ntChild, and returns their directories, nearest first.
func ntStack(t testing.TB) []string {
	t.Helper()
	top := t.TempDir()
	d := func(name string) tar.Header {
		return nt(stamped(dir(name)), "MSWINDOWS.rawsd", sddl(t, topSD), "LIBARCHIVE.creationtime", someTime)
	}
	f := func(name, content string, more ...string) tar.Header {
		h := nt(stamped(file(name, content)), "MSWINDOWS.rawsd", sddl(t, fileSD), "LIBARCHIVE.creationtime", someTime)
		for i := 0; i < len(more); i += 2 {
			h.PAXRecords[more[i]] = more[i+1]
		}
		return h
	}
	stream := func(name, content string) tar.Header {
		h := stamped(file(name, content))
		h.Format = tar.FormatPAX
		return h
	}
	base := tarOf(t, d("Files"),
		f("Files/a.txt", "a"), stream("Files/a.txt:Zone.Identifier", shortText), stream("Files/a.txt:big", longText),
		f("Files/b.txt", "b", "MSWINDOWS.fileattr", "33"), nt(tar.Header{Name: "Files/b2.txt", Typeflag: tar.TypeLink, Linkname: "Files/b.txt"}),
		d("Files/Dir"), f("Files/Dir/one", "1", "MSWINDOWS.xattr.SOME", "dmFsdWU="), f("Files/Dir/two", "2"), d("Files/Dir/Sub"), f("Files/Dir/Sub/deep", "d"),
		stream("Files/Dir/Sub:info", shortText),
		nt(tar.Header{Name: "Files/Junction", Typeflag: tar.TypeSymlink, Linkname: `C:\Dir`}, "MSWINDOWS.fileattr", "1040", "MSWINDOWS.mountpoint", "1",
			"MSWINDOWS.rawsd", sddl(t, topSD)),
		d("Files/Old"), f("Files/Old/x", "x"))
	child := tarOf(t, d("Files"), wh("Files/Old"), f("Files/c.txt", "c"), d("Files/Dir"), wh("Files/Dir/two"), f("Files/Dir/three", "3"), d("Hives"))
	dirs := []string{filepath.Join(top, "child"), filepath.Join(top, "base")}
	_, err := importNT(t, dirs[1], nil, base)
	must(t, err)
	_, err = importNT(t, dirs[0], dirs[1:], child)
	must(t, err)
	return dirs
}

func stamped(h tar.Header) tar.Header {
	h.ModTime = time.Unix(ancient, 0)
	return h
}

// mountNT mounts layers with a scratch layer on top.
func mountNT(t testing.TB, layers []string) *rootfs.Volume {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	dir := filepath.Join(t.TempDir(), "scratch")
	testenv.NoLeaks(t, testenv.Scope{Dir: dir})
	v, err := rootfs.CreateVolume(t.Context(), dir)
	must(t, err)
	must(t, v.Activate(t.Context()))
	must(t, v.PrepareNT(t.Context(), layers))
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		_ = v.Unprepare(ctx) // may be so already
		must(t, v.Deactivate(ctx))
	})
	return v
}

// ntDiff unmounts the layers and returns what was written, one line an entry.
func ntDiff(t testing.TB, v *rootfs.Volume, layers []string, set func(*rootfs.NTScratch)) ([]string, error) {
	t.Helper()
	must(t, v.Unprepare(t.Context()))
	s, err := v.NTScratch(layers)
	must(t, err)
	if set != nil {
		set(&s)
	}
	var lines []string
	err = s.Diff(t.Context(), func(e *layer.Entry, content io.Reader) error {
		lines = append(lines, ntLine(t, e, content))
		return nil
	})
	return lines, err
}

// ntLine tells an entry: what it is, its name, target or content, attributes and descriptor.
func ntLine(t testing.TB, e *layer.Entry, content io.Reader) string {
	t.Helper()
	line := e.Kind.String() + " " + e.Name
	if e.Kind == layer.Whiteout {
		return line
	}
	if e.Stream != "" {
		line += ":" + e.Stream
	}
	if e.Link != "" {
		line += " -> " + e.Link
	}
	if content != nil {
		b, err := io.ReadAll(content)
		must(t, err)
		if int64(len(b)) != e.Size {
			t.Errorf("%s has %d bytes, not %d", e.Name, len(b), e.Size)
		}
		line += fmt.Sprintf(" %.20q", b)
	}
	if e.Kind == layer.Stream {
		return line
	}
	line += " " + e.NT.Attributes.String()
	if e.NT.SecurityDescriptor != nil {
		text := sddlOf(e.NT.SecurityDescriptor)
		line += " " + cmp.Or(map[string]string{topSD: "topSD", fileSD: "fileSD", madeFile: "madeFile", madeDir: "madeDir"}[text], text)
	}
	for _, ea := range e.NT.EA {
		line += fmt.Sprintf(" %s=%s", ea.Name, ea.Value)
	}
	return line
}

// sddlOf returns a descriptor as text, or what is wrong with it.
func sddlOf(sd []byte) string {
	d, err := ntfs.ParseSecurityDescriptor(sd)
	if err != nil {
		return err.Error()
	}
	text, err := d.SDDL()
	if err != nil {
		return err.Error()
	}
	return text
}

func TestNTDiff(t *testing.T) {
	layers := ntStack(t)
	files := "dir Files directory topSD"
	hives := "dir Hives directory topSD"
	within := func(lines ...string) []string { return append(append([]string{files}, lines...), hives) }
	for _, c := range []struct {
		name string
		do   func(in string) error
		want []string
	}{
		{"nothing", func(string) error { return nil }, nil},
		{"read", func(in string) error { _, err := os.ReadFile(in + "/a.txt"); return err }, nil},
		{"made and removed", func(in string) error { return errors.Join(write(in+"/x", "x", 0o644), os.Remove(in+"/x")) }, nil},
		{"new", func(in string) error {
			return errors.Join(write(in+"/new.txt", "n", 0o644), write(in+"/fixed", "f", 0o444), os.Mkdir(in+"/newdir", 0o755),
				write(in+"/newdir/in", "i", 0o600))
		}, within(`file Files/fixed "f" readonly|archive madeFile`, `file Files/new.txt "n" archive madeFile`,
			`dir Files/newdir directory madeDir`, `file Files/newdir/in "i" archive madeFile`)},
		{"append", func(in string) error { return write(in+"/a.txt", "+", 0) }, within(`file Files/a.txt "a+" archive fileSD`,
			`stream Files/a.txt:Zone.Identifier "[ZoneTransfer]"`, `stream Files/a.txt:big "stream stream stream"`)},
		{
			"readonly", func(in string) error { return errors.Join(os.Chmod(in+"/c.txt", 0o444), os.Chmod(in+"/b.txt", 0o644)) },
			within(`file Files/b.txt "b" archive fileSD`, `file Files/c.txt "c" readonly|archive fileSD`),
		},
		{
			"remove", func(in string) error { return errors.Join(os.Remove(in+"/a.txt"), os.Remove(in+"/Dir/three")) },
			within(`whiteout Files/a.txt`, `dir Files/Dir directory topSD`, `whiteout Files/Dir/three`),
		},
		{"remove a directory", func(in string) error { return os.RemoveAll(in + "/Dir") }, within(`whiteout Files/Dir`)},
		{
			"replace a file", func(in string) error { return errors.Join(os.Remove(in+"/a.txt"), write(in+"/a.txt", "A", 0o644)) },
			within(`file Files/a.txt "A" archive madeFile`),
		},
		{"rename", func(in string) error { return os.Rename(in+"/a.txt", in+"/Dir/moved") }, within(`whiteout Files/a.txt`,
			`dir Files/Dir directory topSD`, `file Files/Dir/moved "a" archive fileSD`,
			`stream Files/Dir/moved:Zone.Identifier "[ZoneTransfer]"`, `stream Files/Dir/moved:big "stream stream stream"`)},
		{"rename in case", func(in string) error { return os.Rename(in+"/a.txt", in+"/A.TXT") }, within(`file Files/A.TXT "a" archive fileSD`,
			`stream Files/A.TXT:Zone.Identifier "[ZoneTransfer]"`, `stream Files/A.TXT:big "stream stream stream"`)},
		{"rename a directory in case", func(in string) error {
			return errors.Join(os.RemoveAll(in+"/Dir"), os.Mkdir(in+"/DIR", 0o755), write(in+"/DIR/ONE", "!", 0o644))
		}, within(`dir Files/DIR directory madeDir`, `whiteout Files/DIR/Sub`, `whiteout Files/DIR/three`, `file Files/DIR/ONE "!" archive madeFile`)},
		{"directory made anew", func(in string) error {
			return errors.Join(os.RemoveAll(in+"/Dir"), os.Mkdir(in+"/Dir", 0o755), write(in+"/Dir/one", "!", 0o644))
		}, within(`dir Files/Dir directory madeDir`, `whiteout Files/Dir/Sub`, `whiteout Files/Dir/three`, `file Files/Dir/one "!" archive madeFile`)},
		{
			"directory becomes a link", func(in string) error { return errors.Join(os.RemoveAll(in+"/Dir"), os.Symlink("Junction", in+"/Dir")) },
			within(`symlink Files/Dir -> Junction reparse madeFile`),
		},
		{
			"file becomes a directory", func(in string) error { return errors.Join(os.Remove(in+"/a.txt"), os.Mkdir(in+"/a.txt", 0o755)) },
			within(`dir Files/a.txt directory madeDir`),
		},
		{"links", func(in string) error {
			return errors.Join(os.Symlink("a.txt", in+"/l1"), os.Symlink("Dir/Sub", in+"/l2"), os.Symlink("/Dir/../Dir", in+"/Dir/l3"), os.Symlink("nothing", in+"/l4"))
		}, within(`dir Files/Dir directory topSD`, `symlink Files/Dir/l3 -> \Dir\..\Dir directory|reparse madeDir`,
			`symlink Files/l1 -> a.txt reparse madeFile`, `symlink Files/l2 -> Dir\Sub directory|reparse madeDir`, `symlink Files/l4 -> nothing reparse madeFile`)},
		{"moved junction", func(in string) error { return os.Rename(in+"/Junction", in+"/Dir/Sub/J") }, within(`whiteout Files/Junction`,
			`dir Files/Dir directory topSD`, `dir Files/Dir/Sub directory topSD`, `stream Files/Dir/Sub:info "[ZoneTransfer]"`,
			`symlink Files/Dir/Sub/J -> C:\Dir directory|reparse topSD`)},
		{"hard links", func(in string) error {
			return errors.Join(write(in+"/x", "x", 0o644), os.Link(in+"/x", in+"/y"), os.Link(in+"/c.txt", in+"/Dir/c2"))
		}, within(`dir Files/Dir directory topSD`, `file Files/Dir/c2 "c" archive fileSD`, `hardlink Files/c.txt -> Files/Dir/c2 archive`,
			`file Files/x "x" archive madeFile`, `hardlink Files/y -> Files/x archive`)},
		{"linked below", func(in string) error { return write(in+"/b2.txt", "+", 0) }, within(`file Files/b2.txt "b+" readonly|archive fileSD`)},
		{
			"extended attributes", func(in string) error { return write(in+"/Dir/one", "+", 0) },
			within(`dir Files/Dir directory topSD`, `file Files/Dir/one "1+" archive fileSD SOME=value`),
		},
		{"recycle bin", func(in string) error {
			return errors.Join(os.Mkdir(in+"/$RECYCLE.BIN", 0o700), write(in+"/$RECYCLE.BIN/x", "x", 0o600))
		}, nil},
		{"nothing left", func(in string) error {
			names, err := os.ReadDir(in)
			for _, n := range names {
				err = errors.Join(err, os.RemoveAll(filepath.Join(in, n.Name())))
			}
			return err
		}, within("whiteout Files/Dir", "whiteout Files/Junction", "whiteout Files/a.txt", "whiteout Files/b.txt", "whiteout Files/b2.txt", "whiteout Files/c.txt")},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := mountNT(t, layers)
			must(t, c.do(v.Root()))
			got, err := ntDiff(t, v, layers, nil)
			must(t, err)
			if diff := gocmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// write makes a file, or appends to one that is there.
func write(name, content string, mode os.FileMode) error {
	flags := os.O_WRONLY | os.O_APPEND
	if mode != 0 {
		flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(name, flags, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}

// TestNTDiffPlain writes over a tree that Windows' metadata is not known of.
func TestNTDiffPlain(t *testing.T) {
	base := t.TempDir()
	must(t, os.MkdirAll(base+"/Files/dir", 0o755))
	must(t, write(base+"/Files/dir/old", "o", 0o600))
	v := mountNT(t, []string{base})
	must(t, errors.Join(os.Remove(v.Root()+"/dir/old"), write(v.Root()+"/new", "n", 0o600)))
	got, err := ntDiff(t, v, []string{base}, nil)
	must(t, err)
	for i, want := range []string{"dir Files directory O:BA", "dir Files/dir directory O:BA", "whiteout Files/dir/old", `file Files/new "n" archive O:BA`, "dir Hives"} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestNTDiffUnfit meets what no Windows layer can hold.
func TestNTDiffUnfit(t *testing.T) {
	layers := ntStack(t)
	for _, c := range []struct {
		name string
		do   func(in string) error
		says string
		want []string // of what is not left out, but for Files and Hives
	}{
		{"fifo", func(in string) error { return syscall.Mkfifo(in+"/pipe", 0o600) }, `"Files/pipe": fifo`, nil},
		{"device", func(in string) error { return syscall.Mknod(in+"/null", syscall.S_IFCHR|0o600, 0x103) }, `"Files/null": char`, nil},
		{
			"fifo over a file", func(in string) error { return errors.Join(os.Remove(in+"/a.txt"), syscall.Mkfifo(in+"/a.txt", 0o600)) },
			`"Files/a.txt"`,
			[]string{"whiteout Files/a.txt"},
		},
		{"colon", func(in string) error { return write(in+"/a:b", "x", 0o600) }, `"Files/a:b"`, nil},
		{"device name", func(in string) error { return os.Mkdir(in+"/nul.d", 0o700) }, `"Files/nul.d"`, nil},
		{"final dot", func(in string) error { return write(in+"/x.", "x", 0o600) }, `"Files/x."`, nil},
		{"whiteout's name", func(in string) error { return write(in+"/.wh.a.txt", "x", 0o600) }, `"Files/.wh.a.txt"`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := mountNT(t, layers)
			must(t, c.do(v.Root()))
			if _, err := ntDiff(t, v, layers, nil); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("refused with %v", err)
			}
			must(t, v.PrepareNT(t.Context(), layers))
			var warned []error
			got, err := ntDiff(t, v, layers, func(s *rootfs.NTScratch) {
				s.Unfit, s.Warn = rootfs.SkipUnfit, func(err error) { warned = append(warned, err) }
			})
			must(t, err)
			if len(warned) != 1 || !strings.Contains(warned[0].Error(), c.says) {
				t.Errorf("warned of %v", warned)
			}
			if len(got) < 2 || !slices.Equal(got[1:len(got)-1], c.want) {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestNTDiffCases has names in one directory that Windows takes for one.
func TestNTDiffCases(t *testing.T) {
	layers := ntStack(t)
	for name, do := range map[string]func(in string) error{
		"two new":               func(in string) error { return errors.Join(write(in+"/x", "x", 0o600), write(in+"/X", "x", 0o600)) },
		"beside a lower file":   func(in string) error { return write(in+"/A.TXT", "x", 0o600) },
		"beside a lower folder": func(in string) error { return os.Mkdir(in+"/dir", 0o700) },
	} {
		v := mountNT(t, layers)
		must(t, do(v.Root()))
		if _, err := ntDiff(t, v, layers, nil); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "differs from it in case alone") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNTDiffTimes keeps what the layers say and tells what Linux does.
func TestNTDiffTimes(t *testing.T) {
	layers := ntStack(t)
	v := mountNT(t, layers)
	at := time.Date(2021, 2, 3, 4, 5, 6, 789, time.UTC)
	old := time.Unix(ancient, 0)
	created := time.Unix(1500000000, 0)
	must(t, write(v.Root()+"/new", "n", 0o600))
	must(t, os.Chtimes(v.Root()+"/new", at, at))
	must(t, os.Chmod(v.Root()+"/c.txt", 0o444)) // no change of content
	must(t, write(v.Root()+"/a.txt", "+", 0))
	must(t, os.Chtimes(v.Root()+"/a.txt", at, at))
	must(t, os.Chtimes(v.Root(), old, old))
	must(t, v.Unprepare(t.Context()))
	s, err := v.NTScratch(layers)
	must(t, err)
	var all []layer.Entry
	must(t, s.Diff(t.Context(), func(e *layer.Entry, _ io.Reader) error {
		all = append(all, *e)
		return nil
	}))
	for _, e := range all {
		switch e.Name + e.Stream {
		case "Files/new":
			if cut := at.Truncate(100); !e.ModTime.Equal(cut) || !e.AccessTime.Equal(cut) || !e.ChangeTime.After(cut) || !e.NT.CreationTime.After(cut) {
				t.Errorf("new file: %+v, created %v", e, e.NT.CreationTime)
			}
		case "Files/a.txt":
			if cut := at.Truncate(100); !e.ModTime.Equal(cut) || !e.ChangeTime.Equal(cut) || !e.NT.CreationTime.Equal(created) {
				t.Errorf("changed file: %+v, created %v", e, e.NT.CreationTime)
			}
		case "Files", "Files/c.txt", "Hives":
			if !e.ModTime.Equal(old) || !e.ChangeTime.Equal(old) || !e.NT.CreationTime.Equal(created) {
				t.Errorf("%s, which has old content: %+v, created %v", e.Name, e, e.NT.CreationTime)
			}
		}
	}
	var first, second bytes.Buffer
	must(t, s.Write(t.Context(), &first))
	must(t, s.Write(t.Context(), &second))
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("read twice, it is not the same")
	}
}

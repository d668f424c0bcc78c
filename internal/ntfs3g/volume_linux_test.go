package ntfs3g_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/ntfs3g"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func formatted(t testing.TB) string {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedCommand(t, "mkntfs", "ntfs-3g")
	path := filepath.Join(t.TempDir(), "volume")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 64<<20))
	must(t, ntfs3g.Format(t.Context(), path, "layer", 17<<20))
	return path
}

func descriptor(t testing.TB, sddl string) []byte {
	t.Helper()
	sd, err := ntfs.ParseSDDL(sddl)
	must(t, err)
	b, err := sd.Append(nil)
	must(t, err)
	return b
}

type object struct {
	layer.Entry
	content string
}

func entries(t testing.TB) []object {
	sd := descriptor(t, "O:BAG:SYD:(A;OICI;FA;;;BA)(A;;0x1200a9;;;BU)")
	at := func(n int) time.Time { return time.Date(2001+n, 2, 3, 4, 5, 6, 700*(n+1), time.UTC) }
	entry := func(i int, name string, kind layer.Kind, attributes ntfs.Attributes, content string) object {
		return object{layer.Entry{
			Name: name, Kind: kind, Size: int64(len(content)), ModTime: at(i), AccessTime: at(i + 1), ChangeTime: at(i + 2),
			NT: &ntfs.Meta{Attributes: attributes, CreationTime: at(i + 3), SecurityDescriptor: sd},
		}, content}
	}
	stream := func(name, stream, content string) object {
		return object{layer.Entry{Name: name, Kind: layer.Stream, Stream: stream, Size: int64(len(content)), NT: &ntfs.Meta{}}, content}
	}
	junction, err := ntfs.NewLink(ntfs.TagMountPoint, `C:\Windows`).Append(nil)
	must(t, err)
	symlink, err := ntfs.NewLink(ntfs.TagSymlink, `..\x.txt`).Append(nil)
	must(t, err)
	list := []object{
		entry(0, ".", layer.Dir, 0x16, ""),
		entry(1, "Windows", layer.Dir, 0x10, ""),
		stream("Windows", "note", "of a directory"),
		entry(2, "Windows/junction", layer.Symlink, 0x410, ""),
		entry(3, "Windows/link", layer.Symlink, 0x420, ""),
		entry(4, "Windows/x.txt", layer.File, 0x2023, "content"),
		stream("Windows/x.txt", "Zone.Identifier", "[ZoneTransfer]"),
		stream("Windows/x.txt", "large", strings.Repeat("0123456789abcdef", 20000)),
		{layer.Entry{Name: "Windows/y.txt", Kind: layer.Hardlink, Link: "Windows/x.txt"}, ""},
		entry(5, "empty", layer.File, 0x20, ""),
	}
	list[3].NT.Reparse, list[4].NT.Reparse = junction, symlink
	list[5].NT.EA = []ntfs.EA{{Name: "FIRST", Value: []byte("1")}, {Name: "SECOND.LONGER", Flags: 0x80, Value: []byte("value")}}
	list[5].NT.ObjectID = bytes.Repeat([]byte{1, 2, 3, 4}, 16)
	return list
}

func fill(t testing.TB, path string, list []object) {
	t.Helper()
	v, err := ntfs3g.Mount(t.Context(), path)
	must(t, err)
	for _, o := range list {
		if err := v.Add(&o.Entry, strings.NewReader(o.content)); err != nil {
			t.Error(err)
		}
	}
	must(t, v.Close())
}

func read(t testing.TB, path string) []object {
	t.Helper()
	v, err := ntfs3g.Mount(t.Context(), path)
	must(t, err)
	var list []object
	err = v.Walk(func(e *layer.Entry, content io.Reader) error {
		o := object{Entry: *e}
		if content != nil {
			b, err := io.ReadAll(content)
			o.content = string(b)
			if err != nil || int64(len(b)) != e.Size {
				return fmt.Errorf("%s: %d bytes of %d: %w", e.Name, len(b), e.Size, err)
			}
		}
		list = append(list, o)
		return nil
	})
	must(t, errors.Join(err, v.Close()))
	return list
}

// describe prints everything that is to survive.
func describe(list []object) string {
	var b strings.Builder
	for _, o := range list {
		fmt.Fprintf(&b, "%s %v %q -> %q\n", o.Name, o.Kind, o.Stream, o.Link)
		if o.Kind == layer.Stream || o.Kind == layer.File {
			fmt.Fprintf(&b, "  %d %.40q\n", len(o.content), o.content)
		}
		if o.Kind == layer.Stream || o.Kind == layer.Hardlink {
			continue
		}
		for _, t := range []time.Time{o.NT.CreationTime, o.ModTime, o.AccessTime, o.ChangeTime} {
			fmt.Fprintf(&b, "  %v\n", ntfs.FromTime(t))
		}
		fmt.Fprintf(&b, "  %#x sd %x\n  reparse %x\n  id %x\n", uint32(o.NT.Attributes), o.NT.SecurityDescriptor, o.NT.Reparse, o.NT.ObjectID)
		for _, ea := range o.NT.EA {
			fmt.Fprintf(&b, "  ea %s %#x %q\n", ea.Name, ea.Flags, ea.Value)
		}
	}
	return b.String()
}

// TestVolume writes and reads everything.
func TestVolume(t *testing.T) {
	t.Parallel()
	path := formatted(t)
	testenv.NoLeaks(t, testenv.Scope{Dir: path})
	want := entries(t)
	fill(t, path, want)
	if d := cmp.Diff(describe(want), describe(read(t, path))); d != "" {
		t.Error(d)
	}
}

// TestVolumeWimlib has wimlib look at a volume.
func TestVolumeWimlib(t *testing.T) {
	t.Parallel()
	wimlib := testenv.NeedCommand(t, "wimlib-imagex")[0]
	path := formatted(t)
	fill(t, path, entries(t))
	wim := filepath.Join(t.TempDir(), "volume.wim")
	out, err := exec.CommandContext(t.Context(), wimlib, "capture", path, wim, "--compress=none").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err = exec.CommandContext(t.Context(), wimlib, "dir", wim, "1", "--detailed").CombinedOutput()
	must(t, err)
	seen := strings.Join(strings.Fields(string(out)), " ")
	for _, want := range []string{
		`"/Windows/x.txt"`, `"/Windows/y.txt"`, `"Zone.Identifier"`, `"large": Hash = 0x6b29af24523066a0352d4398e5cd8edb1c8364c3`, `"note"`,
		"Attributes = 0x00002023", "Reparse Tag = 0xa0000003", "Reparse Tag = 0xa000000c", "Link Count = 2",
		"Creation Time = Sun Feb 03 04:05:06 2008 UTC Last Write Time = Thu Feb 03 04:05:06 2005 UTC Last Access Time = Fri Feb 03 04:05:06 2006 UTC",
		fmt.Sprintf("Security Descriptor = %x", descriptor(t, "O:BAG:SYD:(A;OICI;FA;;;BA)(A;;0x1200a9;;;BU)")),
	} {
		if !strings.Contains(seen, want) {
			t.Errorf("wimlib does not tell of %s", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

func TestVolumeRefuses(t *testing.T) {
	t.Parallel()
	path := formatted(t)
	v, err := ntfs3g.Mount(t.Context(), path)
	must(t, err)
	for _, o := range entries(t) {
		must(t, v.Add(&o.Entry, strings.NewReader(o.content)))
	}
	nt := &ntfs.Meta{}
	for _, c := range []struct {
		entry layer.Entry
		class error
	}{
		{layer.Entry{Name: "Windows/junction/x", NT: nt}, errdefs.ErrNotFound},
		{layer.Entry{Name: "nowhere/x", NT: nt}, errdefs.ErrNotFound},
		{layer.Entry{Name: "WINDOWS/X.TXT", NT: nt}, errdefs.ErrAlreadyExists},
		{layer.Entry{Name: "windows", NT: nt}, errdefs.ErrAlreadyExists},
		{layer.Entry{Name: "WINDOWS", Kind: layer.Dir, NT: nt}, errdefs.ErrAlreadyExists},
		{layer.Entry{Name: "wINDOWS", Kind: layer.Hardlink, Link: "Windows/x.txt"}, errdefs.ErrAlreadyExists},
		{layer.Entry{Name: "a:b", NT: nt}, errdefs.ErrInvalidArgument},
		{layer.Entry{Name: "x"}, errdefs.ErrInvalidArgument},
		{layer.Entry{Name: "x", Kind: layer.Fifo, NT: nt}, errdefs.ErrInvalidArgument},
		{layer.Entry{Name: "x", Kind: layer.Hardlink, Link: "gone"}, errdefs.ErrNotFound},
		{layer.Entry{Name: "x", Kind: layer.Stream, Stream: "s"}, errdefs.ErrNotFound},
	} {
		if err := v.Add(&c.entry, nil); !errors.Is(err, c.class) {
			t.Errorf("%v %s: %v", c.entry.Kind, c.entry.Name, err)
		} else if errors.Is(c.class, errdefs.ErrAlreadyExists) && !strings.Contains(err.Error(), `name is taken by "`) {
			t.Errorf("%s: %v does not say by what", c.entry.Name, err)
		}
	}
	must(t, v.Close())
	must(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
	if v, err := ntfs3g.Mount(t.Context(), path); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("not a volume: %v, %v", v, err)
	}
}

// TestKilled kills a process that has mounted a volume: the mount and the program go with it, and what was written is there. The
// directory that it was mounted in goes with the next one.
func TestKilled(t *testing.T) {
	if path := os.Getenv("HCS_TEST_NTFS3G_VOLUME"); path != "" {
		v, err := ntfs3g.Mount(t.Context(), path)
		must(t, err)
		must(t, v.Add(&layer.Entry{Name: "written", Size: 4, NT: &ntfs.Meta{Attributes: ntfs.AttrArchive}}, strings.NewReader("text")))
		fmt.Println("mounted")
		testenv.AwaitKill(v)
	}
	path, temporary := formatted(t), t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$", "-test.v=false")
	cmd.Env = append(os.Environ(), "HCS_TEST_NTFS3G_VOLUME="+path, "TMPDIR="+temporary)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	first, err := bufio.NewReader(out).ReadString('\n')
	if err = errors.Join(err, cmd.Process.Kill()); err != nil || first != "mounted\n" {
		t.Errorf("the process that is to be killed says %q: %v", first, err)
	}
	_ = cmd.Wait() // it was killed
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		mounts, err := os.ReadFile("/proc/self/mounts")
		must(t, err)
		if !strings.Contains(string(mounts), temporary) && !runs(t, temporary) {
			break
		}
		if time.Since(begun) > time.Minute {
			t.Fatalf("it stays mounted, or ntfs-3g runs on:\n%s", mounts)
		}
	}
	t.Setenv("TMPDIR", temporary)
	if list := read(t, path); len(list) != 2 || list[1].Name != "written" || list[1].content != "text" {
		t.Errorf("the volume has %+v", list)
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("left in the directory for temporary files: %v, %v", left, err)
	}
}

// runs says whether a program runs that has arg in its arguments.
func runs(t *testing.T, arg string) bool {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, name := range lines {
		if line, err := os.ReadFile(name); err == nil && bytes.Contains(line, []byte(arg)) {
			return true
		}
	}
	return false
}

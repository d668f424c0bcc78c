package rootfs_test

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/rootfs"
)

// smallLayer is a layer that a folder can hold.
func smallLayer() []ntObject {
	file := ntEntry(layer.File, "Files/dir/file", ntfs.AttrArchive)
	file.Size = 7
	hive := ntEntry(layer.File, "Hives/System_Delta", ntfs.AttrArchive)
	return []ntObject{
		{ntEntry(layer.Dir, "Files", ntfs.AttrDirectory), ""},
		whiteoutOf("Files/gone"),
		{ntEntry(layer.Dir, "Files/dir", ntfs.AttrDirectory), ""},
		{file, "content"},
		{ntEntry(layer.Dir, "Hives", ntfs.AttrDirectory), ""},
		{hive, ""},
	}
}

// TestTransportAttacks damages a folder in every way that its maker or somebody after him may: reading it is an error that
// names what is wrong.
func TestTransportAttacks(t *testing.T) {
	t.Parallel()
	head := "\ufeffVersion 1.0\r\n"
	type folder = string
	replace := func(name, content string) func(folder) error {
		return func(dir folder) error { return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600) }
	}
	link := func(name, target string) func(folder) error {
		return func(dir folder) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, name)), os.Symlink(target, filepath.Join(dir, name)))
		}
	}
	tombstone := func(line string) func(folder) error { return replace("tombstones.txt", head+line+"\r\n") }
	attributes := "\x20\x00\x00\x00"
	data := func(size string) string { return "\x01\x00\x00\x00\x00\x00\x00\x00" + size + "\x00\x00\x00\x00" }
	for _, c := range []struct {
		name string
		do   func(folder) error
		text string
	}{
		{"symbolic link to a file", link("Files/dir/file", "/etc/passwd"), `"Files/dir/file": it is a symbolic link`},
		{"symbolic link to a directory", link("Files/dir", "/etc"), `"Files/dir": it is a symbolic link`},
		{"symbolic link for Files", link("Files", "/etc"), `"Files": it is a symbolic link`},
		{"symbolic link for a sidecar", link("Files/dir.$wcidirs$", "/etc/passwd"), `Files/dir`},
		{"symbolic link for the tombstones", link("tombstones.txt", "/etc/passwd"), "tombstones.txt: it is a symbolic link"},
		{"symbolic link for a hive", link("Hives/System_Delta", "/etc/passwd"), "it is a symbolic link"},
		{"fifo", func(d folder) error { return syscall.Mkfifo(d+"/Files/fifo", 0o600) }, "neither file nor directory"},
		{"fifo for the tombstones", func(d folder) error {
			return errors.Join(os.Remove(d+"/tombstones.txt"), syscall.Mkfifo(d+"/tombstones.txt", 0o600))
		}, "neither file nor directory"},
		{"empty file", replace("Files/dir/file", ""), "less than the attributes"},
		{"half of the attributes", replace("Files/dir/file", "\x20\x00"), "less than the attributes"},
		{"half a header", replace("Files/dir/file", attributes+"\x01\x00\x00"), `"Files/dir/file"`},
		{"content is cut off", replace("Files/dir/file", attributes+data("\x09\x00\x00\x00\x00\x00\x00\x00")+"cut"), "unexpected EOF"},
		{"lying size", replace("Files/dir/file", attributes+data("\xff\xff\xff\xff\xff\xff\xff\x7f")+"x"), `"Files/dir/file"`},
		{"absurd size", replace("Files/dir/file", attributes+data("\xff\xff\xff\xff\xff\xff\xff\xff")+"x"), "a size of"},
		{"a file says it is a directory", replace("Files/dir/file", "\x10\x00\x00\x00"), "not those of a file"},
		{"a directory says it is a file", replace("Files/dir.$wcidirs$", attributes), "not those of a dir"},
		{"content of a directory", replace("Files/dir.$wcidirs$", "\x10\x00\x00\x00"+data("\x01\x00\x00\x00\x00\x00\x00\x00")+"x"), "1 bytes of content"},
		{"descriptor that is none", replace("Files/dir/file", attributes+"\x03\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00x"), "security descriptor"},
		{"no sidecar", func(d folder) error { return os.Remove(d + "/Files/dir.$wcidirs$") }, "has no dir.$wcidirs$"},
		{"sidecar of nothing", replace("Files/x.$wcidirs$", "\x10\x00\x00\x00"), "no directory that it tells of"},
		{"sidecar of a file", replace("Files/dir/file.$wcidirs$", "\x10\x00\x00\x00"), "no directory that it tells of"},
		{"sidecar in capitals", replace("Files/dir.$WCIDIRS$", "\x10\x00\x00\x00"), "differ in case"},
		{"case collision", replace("Files/dir/FILE", attributes), "differ in case"},
		{"colon", replace("Files/dir/a:b", attributes), `"Files/dir/a:b"`},
		{"backslash", replace(`Files/dir/a\b`, attributes), `Windows has no such name`},
		{"device", replace("Files/dir/NUL.txt", attributes), "device"},
		{"dot at the end", replace("Files/dir/x.", attributes), "ends in a dot"},
		{"whiteout's name", replace("Files/dir/.wh.x", attributes), "whiteout"},
		{"no text", replace("Files/dir/\xff", attributes), `Files/dir/`},
		{"unknown at the top", replace("sandbox.vhdx", ""), `"sandbox.vhdx": no transport folder has it`},
		{"merged hive", replace("Hives/System_Base", ""), "merged hives"},
		{"sidecar for the utility VM", replace("UtilityVM.$wcidirs$", ""), "no transport folder has it"},
		{"copy of nothing", replace("bcd.bak", ""), "bcd.bak is the copy of a file that is not there"},
		{"no Files", func(d folder) error { return os.RemoveAll(d + "/Files") }, "Files"},
		{"tombstones without mark", replace("tombstones.txt", "Version 1.0\r\n"), "byte order mark"},
		{"tombstones of another version", replace("tombstones.txt", "\ufeffVersion 2.0\r\n"), "Version 1.0"},
		{"empty tombstones", replace("tombstones.txt", ""), "it is empty"},
		{"tombstone upwards", tombstone(`\..\x`), "line 2"},
		{"tombstone far upwards", tombstone(`\dir\..\..\UtilityVM\Files\x`), "line 2"},
		{"tombstone of all", tombstone(`\`), "line 2"},
		{"tombstone of nothing", tombstone(``), "line 2"},
		{"relative tombstone", tombstone(`x`), "begins with a backslash"},
		{"tombstone of a share", tombstone(`\\server\x`), "line 2"},
		{"tombstone with a slash", tombstone(`\a/b`), "begins with a backslash"},
		{"tombstone of a stream", tombstone(`\a:b`), "line 2"},
		{"tombstone of a drive", tombstone(`\C:\x`), "line 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			top := t.TempDir()
			dir := filepath.Join(top, "folder")
			writeFolder(t, dir, smallLayer())
			must(t, c.do(dir))
			var got []ntObject
			err := rootfs.ReadTransport(t.Context(), dir, collectTo(&got))
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q", err, c.text)
			}
			_, err = rootfs.ImportEntries(t.Context(), filepath.Join(top, "layer"), nil, func(emit rootfs.Emit) error {
				return rootfs.ReadTransport(t.Context(), dir, emit)
			}, ntOptions())
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("imported: %v, want %q", err, c.text)
			}
			if left := names(t, top); len(left) != 1 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestTransportLinkOutside has a junction on disk with something in it that a reader might take for what is behind it.
func TestTransportLinkOutside(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "folder")
	junction := ntEntry(layer.Symlink, "Files/junction", ntfs.AttrDirectory|ntfs.AttrReparse)
	junction.NT.Reparse, _ = ntfs.NewLink(ntfs.TagMountPoint, `C:\x`).Append(nil)
	writeFolder(t, dir, append(smallLayer(), ntObject{junction, ""}))
	must(t, os.WriteFile(dir+"/Files/junction/x", []byte("\x20\x00\x00\x00"), 0o600))
	err := rootfs.ReadTransport(t.Context(), dir, func(*layer.Entry, io.Reader) error { return nil })
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "leads elsewhere") {
		t.Errorf("got %v", err)
	}
}

// TestTransportRefuses writes what a folder has no form for: an error that names it, and no folder.
func TestTransportRefuses(t *testing.T) {
	t.Parallel()
	sized := func(e *layer.Entry, size int64) ntObject { e.Size = size; return ntObject{e, "short"} }
	stream := func(name string) ntObject {
		e := ntEntry(layer.Stream, name, 0)
		e.Stream, e.NT = "s", new(ntfs.Meta)
		return ntObject{e, ""}
	}
	linkTo := func(target string) ntObject {
		e := ntEntry(layer.Hardlink, "Files/link", ntfs.AttrArchive)
		e.Link = target
		return ntObject{e, ""}
	}
	big := ntEntry(layer.File, "Hives/Sam_Delta", ntfs.AttrArchive)
	big.NT.EA = []ntfs.EA{{Name: "A", Value: make([]byte, 2000)}}
	file := func(name string) ntObject { return ntObject{ntEntry(layer.File, name, ntfs.AttrArchive), ""} }
	for _, c := range []struct {
		name  string
		extra []ntObject
		is    func(error) bool
		text  string
	}{
		{"opaque directory", []ntObject{{ntEntry(layer.Opaque, "Files/dir", 0), ""}}, errdefs.IsNotImplemented, `"Files/dir"`},
		{"removed from the VM", []ntObject{whiteoutOf("UtilityVM/Files/x")}, errdefs.IsNotImplemented, `"UtilityVM/Files/x"`},
		{"stream of a hive", []ntObject{file("Hives/Sam_Delta"), stream("Hives/Sam_Delta")}, errdefs.IsNotImplemented, `stream "s"`},
		{"late stream", []ntObject{file("Files/x"), stream("Files/dir/file")}, errdefs.IsNotImplemented, "does not follow"},
		{"big metadata of a hive", []ntObject{{big, ""}}, errdefs.IsNotImplemented, `"Hives/Sam_Delta"`},
		{"long name", []ntObject{file("Files/" + strings.Repeat("ä", 200))}, errdefs.IsOutOfRange, "too long for Linux"},
		{"long directory", []ntObject{{ntEntry(layer.Dir, "Files/"+strings.Repeat("d", 250), ntfs.AttrDirectory), ""}}, errdefs.IsOutOfRange, "too long for Linux"},
		{"sidecar's name", []ntObject{file("Files/a.$WCIdirs$")}, errdefs.IsInvalidArgument, "own files"},
		{"twice", []ntObject{file("Files/DIR/File")}, errdefs.IsAlreadyExists, "has it already"},
		{"link to nothing", []ntObject{linkTo("Files/nothing")}, errdefs.IsNotFound, `target "Files/nothing"`},
		{"link to a directory", []ntObject{linkTo("Files/dir")}, errdefs.IsInvalidArgument, "is a directory"},
		{"link to itself", []ntObject{linkTo("Files/LINK")}, errdefs.IsInvalidArgument, "end nowhere"},
		{"content too short", []ntObject{sized(ntEntry(layer.File, "Files/x", 0), 10)}, errdefs.IsDataLoss, `"Files/x"`},
		{"hive too short", []ntObject{sized(ntEntry(layer.File, "Hives/Sam_Delta", 0), 10)}, errdefs.IsDataLoss, `"Hives/Sam_Delta"`},
		{"other system", []ntObject{{&layer.Entry{Name: "Files/x"}, ""}}, errdefs.IsInvalidArgument, "another system"},
		{"outside", []ntObject{file("Files/../x")}, errdefs.IsInvalidArgument, "Files/../x"},
		{"through a file", []ntObject{file("Files/dir/file/x")}, errdefs.IsInvalidArgument, "leads through"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			top := t.TempDir()
			err := rootfs.WriteTransport(t.Context(), filepath.Join(top, "folder"), sourceOf(append(smallLayer(), c.extra...)), transportOptions())
			if !c.is(err) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q", err, c.text)
			}
			if left := names(t, top); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestTransportParents links to a parent's file and adds to a parent's directory that the layer has no entry for.
func TestTransportParents(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	parent := filepath.Join(top, "parent")
	const text = "O:BAG:SYD:(A;;FA;;;BA)"
	_, err := importNT(t, parent, nil, tarOf(t, nt(dir("Files")), nt(dir("Files/Windows"), "MSWINDOWS.rawsd", sddl(t, text)),
		nt(file("Files/Windows/a", "content"), "MSWINDOWS.rawsd", sddl(t, text)), file("Files/Windows/a:s", "stream"), nt(dir("Hives"))))
	must(t, err)
	child := tarOf(t, nt(dir("Files")), nt(file("Files/Windows/new", "x")), nt(dir("Hives")),
		nt(tar.Header{Name: "Files/b", Typeflag: tar.TypeLink, Linkname: "Files/windows/A"}))
	folder := filepath.Join(top, "folder")
	must(t, rootfs.WriteTransport(t.Context(), folder, tarSource(child), transportOptions(parent)))
	got := readFolder(t, folder)
	byName := make(map[string]ntObject)
	for _, o := range got {
		if o.Entry.Kind == layer.Stream {
			o.Entry.Name += ":" + o.Entry.Stream
		}
		byName[o.Entry.Name] = o
	}
	for _, name := range []string{"Files/Windows", "Files/b"} {
		d, err := ntfs.ParseSecurityDescriptor(byName[name].Entry.NT.SecurityDescriptor)
		must(t, err)
		if s, err := d.SDDL(); err != nil || s != text {
			t.Errorf("%s has %q, %v", name, s, err)
		}
	}
	if b := byName["Files/b"]; b.Entry.Kind != layer.File || b.Content != "content" {
		t.Errorf("the link is %v with %q", b.Entry.Kind, b.Content)
	}
	if s := byName["Files/b:s"]; s.Content != "stream" {
		t.Errorf("the link's stream is %q", s.Content)
	}
}

// TestTransportLinks writes links before and to each other, and reads the file under the first name.
func TestTransportLinks(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "folder")
	link := func(name, target string) ntObject {
		e := ntEntry(layer.Hardlink, name, ntfs.AttrArchive)
		e.Link = target
		return ntObject{e, ""}
	}
	objects := append(smallLayer(), link("Files/z", "Files/y"), link("Files/y", "Files/DIR/late"), link("Files/a", "Files/z"))
	late := ntEntry(layer.File, "Files/dir/late", ntfs.AttrArchive)
	late.Size = 4
	writeFolder(t, dir, append(objects, ntObject{late, "late"}))
	got := make(map[string]string)
	for _, o := range readFolder(t, dir) {
		got[o.Entry.Name] = o.Entry.Kind.String() + " " + o.Entry.Link + o.Content
	}
	want := map[string]string{
		"Files": "dir ", "Files/gone": "whiteout ", "Files/dir": "dir ", "Files/dir/file": "file content", "Hives": "dir ", "Hives/System_Delta": "file ",
		"Files/a": "file late", "Files/dir/late": "hardlink Files/a", "Files/y": "hardlink Files/a", "Files/z": "hardlink Files/a",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestTransportOfWindows reads a folder as it comes from Windows: without our attributes and without sidecars at the top, with
// a boot configuration that was changed since, and with lines that end as there.
func TestTransportOfWindows(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "folder")
	boot := dir + "/UtilityVM/Files/EFI/Microsoft/Boot"
	must(t, errors.Join(os.MkdirAll(dir+"/Files", 0o700), os.Mkdir(dir+"/Hives", 0o700), os.MkdirAll(boot, 0o700)))
	for name, content := range map[string]string{
		"tombstones.txt": "\ufeffVersion 1.0\r\n\\gone\r\n\\not\\here\r\n", "Files/a": "\x20\x00\x00\x00", "Hives/System_Delta": "regf",
		"UtilityVM/Files/EFI/Microsoft/Boot/BCD": "changed", "bcd.bak": "as it came",
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
		must(t, os.Chtimes(filepath.Join(dir, name), transportTime.Add(time.Hour), transportTime))
	}
	var got []string
	for _, o := range readFolder(t, dir) {
		got = append(got, o.Entry.Kind.String()+" "+o.Entry.Name+" "+o.Content)
		switch e := o.Entry; e.Name {
		case "Files", "Hives", "Hives/System_Delta":
			if !e.ModTime.Equal(transportTime) || !e.AccessTime.Equal(transportTime) || !e.NT.CreationTime.Equal(transportTime) {
				t.Errorf("%s has other times than the hive's last write", e.Name)
			}
		case "Files/a":
			if !e.AccessTime.Equal(transportTime.Add(time.Hour)) || !e.NT.CreationTime.Equal(transportTime) {
				t.Errorf("%s has the times %v, %v", e.Name, e.AccessTime, e.NT.CreationTime)
			}
		}
	}
	want := []string{
		"dir Files ", "whiteout Files/gone ", "file Files/a ", "whiteout Files/not/here ", "dir Hives ", "file Hives/System_Delta regf", "dir UtilityVM ",
		"dir UtilityVM/Files ", "dir UtilityVM/Files/EFI ", "dir UtilityVM/Files/EFI/Microsoft ", "dir UtilityVM/Files/EFI/Microsoft/Boot ",
		"file UtilityVM/Files/EFI/Microsoft/Boot/BCD as it came",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestTransportCancelled stops in the middle.
func TestTransportCancelled(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	source := func(emit rootfs.Emit) error {
		for _, o := range smallLayer() {
			cancel()
			if err := emit(o.Entry, strings.NewReader(o.Content)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := rootfs.WriteTransport(ctx, filepath.Join(top, "folder"), source, transportOptions()); !errors.Is(err, context.Canceled) {
		t.Errorf("written: %v", err)
	}
	if left := names(t, top); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	writeFolder(t, filepath.Join(top, "whole"), smallLayer())
	if err := rootfs.ReadTransport(ctx, filepath.Join(top, "whole"), func(*layer.Entry, io.Reader) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
}

// TestTransportFullDisk writes a folder where there is no room for it.
func TestTransportFullDisk(t *testing.T) {
	testenv.NeedRoot(t)
	top := t.TempDir()
	must(t, syscall.Mount("tmpfs", top, "tmpfs", 0, "size=1m"))
	defer func() { must(t, syscall.Unmount(top, 0)) }()
	file := ntEntry(layer.File, "Files/large", ntfs.AttrArchive)
	file.Size = 2 << 20
	objects := append(smallLayer(), ntObject{file, strings.Repeat("x", 2<<20)})
	err := rootfs.WriteTransport(t.Context(), filepath.Join(top, "folder"), sourceOf(objects), transportOptions())
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "Files/large") {
		t.Errorf("got %v", err)
	}
	if left := names(t, top); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestTransportTwoAtOnce writes one folder twice: one call makes it.
func TestTransportTwoAtOnce(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	var group sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		group.Go(func() {
			errs[i] = rootfs.WriteTransport(t.Context(), filepath.Join(top, "folder"), sourceOf(smallLayer()), transportOptions())
		})
	}
	group.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else if !errdefs.IsAlreadyExists(err) {
			t.Error(err)
		}
	}
	if left := names(t, top); made != 1 || len(left) != 1 {
		t.Errorf("%d calls made %q", made, left)
	}
}

const killedFolder = "HCS_TEST_TRANSPORT"

// TestTransportKilled kills a process in the middle of a folder. The next one makes it.
func TestTransportKilled(t *testing.T) {
	if dir := os.Getenv(killedFolder); dir != "" {
		_ = rootfs.WriteTransport(t.Context(), dir, func(emit rootfs.Emit) error {
			for _, o := range smallLayer() {
				if err := emit(o.Entry, strings.NewReader(o.Content)); err != nil {
					return err
				}
			}
			_, _ = os.Stdout.WriteString("ready\n")
			testenv.AwaitKill()
			return nil
		}, transportOptions())
		return
	}
	t.Parallel()
	top := t.TempDir()
	dir := filepath.Join(top, "folder")
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTransportKilled$")
	child.Env = append(os.Environ(), killedFolder+"="+dir)
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	_, err = io.ReadFull(out, make([]byte, len("ready\n")))
	must(t, err)
	must(t, child.Process.Kill())
	_ = child.Wait() // it was killed
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a folder is there: %v", err)
	}
	writeFolder(t, dir, smallLayer())
	if left := names(t, top); len(left) != 1 {
		t.Errorf("left: %q", left)
	}
	if got := readFolder(t, dir); len(got) != len(smallLayer()) {
		t.Errorf("%d entries", len(got))
	}
}

// FuzzTransportTombstones reads any tombstones.txt: names below Files, or an error.
func FuzzTransportTombstones(f *testing.F) {
	f.Add("\ufeffVersion 1.0\n\\a\\b\n")
	f.Add("\ufeffVersion 1.0\r\n\\..\\x\r\n")
	dir := fuzzFolder(f)
	f.Fuzz(func(t *testing.T, content string) {
		must(t, os.WriteFile(dir+"/tombstones.txt", []byte(content), 0o600))
		_ = rootfs.ReadTransport(t.Context(), dir, func(e *layer.Entry, _ io.Reader) error {
			if err := layer.CheckNT(e); err != nil {
				t.Error(err)
			}
			if e.Kind == layer.Whiteout && !strings.HasPrefix(e.Name, "Files/") {
				t.Errorf("%q is removed", e.Name)
			}
			return nil
		})
	})
}

// FuzzTransportFile reads anything as a file of the folder: an entry whose content is as long as it says, or an error. What
// was read is written and read again the same.
func FuzzTransportFile(f *testing.F) {
	f.Add([]byte("\x20\x00\x00\x00"), false)
	f.Add([]byte("\x20\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00x"), false)
	f.Add([]byte("\x10\x00\x00\x00\x09\x00\x00\x00\x08\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"), true)
	dir := fuzzFolder(f)
	f.Fuzz(func(t *testing.T, content []byte, ofDir bool) {
		name := dir + "/Files/dir/file"
		if ofDir {
			name = dir + "/Files/dir.$wcidirs$"
		}
		before, err := os.ReadFile(name)
		must(t, err)
		must(t, os.WriteFile(name, content, 0o600))
		defer func() { must(t, os.WriteFile(name, before, 0o600)) }()
		var got []ntObject
		err = rootfs.ReadTransport(t.Context(), dir, func(e *layer.Entry, content io.Reader) error {
			if e.Size > 1<<24 {
				return errors.New("enough")
			}
			if err := collectTo(&got)(e, content); err != nil {
				return err
			}
			if o := got[len(got)-1]; int64(len(o.Content)) != e.Size {
				t.Errorf("%d bytes for a size of %d", len(o.Content), e.Size)
			}
			return nil
		})
		if err != nil {
			return
		}
		again := filepath.Join(t.TempDir(), "folder")
		writeFolder(t, again, got)
		if diff := cmp.Diff(got, readFolder(t, again), entryEqual); diff != "" {
			t.Errorf("-first +second:\n%s", diff)
		}
	})
}

func fuzzFolder(f *testing.F) string {
	dir := filepath.Join(f.TempDir(), "folder")
	if err := rootfs.WriteTransport(f.Context(), dir, sourceOf(smallLayer()), transportOptions()); err != nil {
		f.Fatal(err)
	}
	return dir
}

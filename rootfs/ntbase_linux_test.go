package rootfs_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hostcompute/hcs/disk"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/regf"
	"github.com/hostcompute/hcs/rootfs"
)

// ofBase is what a base layer has in its directory once it is processed.
func ofBase(t *testing.T) []string {
	t.Helper()
	all := append(names(t, importStack(t, [][]byte{baseStream(t)})[0]), "Hives", "blank-base.vhdx", "blank.vhdx", "layout")
	slices.Sort(all)
	return all
}

// baseStream is a base layer with registry hives.
func baseStream(t testing.TB) []byte {
	t.Helper()
	return tarOf(t, hiveHeaders(t)...)
}

// checkBase looks whether a directory is a complete base layer.
func checkBase(t testing.TB, dir string) {
	t.Helper()
	for _, name := range rootfs.HiveNames() {
		file, err1 := os.Stat(filepath.Join(dir, name.File()))
		base, err2 := os.Stat(filepath.Join(dir, name.Base()))
		if err := errors.Join(err1, err2); err != nil {
			t.Error(err)
		} else if !os.SameFile(file, base) {
			t.Errorf("%s is another file than %s", name.Base(), name.File())
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "layout")); err != nil || string(b) != "vhd-with-hives\n" {
		t.Errorf("layout has %q, %v", b, err)
	}
	checkBlank(t, filepath.Join(dir, "blank.vhdx"), 20<<30)
}

// checkBlank looks whether an image is a differencing one on an empty NTFS volume.
func checkBlank(t testing.TB, name string, size int64) {
	t.Helper()
	d, err := disk.OpenFile(name, disk.FileOptions{})
	must(t, err)
	defer func() { must(t, d.Close()) }()
	if info := d.Info(); info.Format != disk.DifferencingVHDX || info.Size != size || info.BlockSize != 1<<20 {
		t.Errorf("%s is %+v", name, info)
	}
	table, err := disk.ReadTable(d, size)
	must(t, err)
	boot := make([]byte, 512)
	data := table.Partitions[len(table.Partitions)-1]
	_, err = d.ReadAt(boot, data.Offset)
	must(t, err)
	sectors := int64(binary.LittleEndian.Uint64(boot[40:])) // of the volume, without the boot sector's copy
	if data.Type != disk.BasicData || string(boot[3:11]) != "NTFS    " || sectors*512 > data.Size || sectors*512 < data.Size-1<<20 {
		t.Errorf("%s has in a partition of %d bytes %q, %d sectors", name, data.Size, boot[3:11], sectors)
	}
}

func TestProcessBaseLayer(t *testing.T) {
	t.Parallel()
	testenv.NeedCommand(t, "mkntfs")
	stream := baseStream(t)
	layer := importStack(t, [][]byte{stream})[0]
	for _, missing := range []string{"", "blank.vhdx", "layout", "Hives/Sam_Base", "Hives"} {
		before, beforeErr := os.Stat(filepath.Join(layer, "blank-base.vhdx"))
		if missing != "" {
			must(t, os.RemoveAll(filepath.Join(layer, missing)))
		}
		must(t, rootfs.ProcessBaseLayer(t.Context(), layer))
		checkBase(t, layer)
		if diff := cmp.Diff(ofBase(t), names(t, layer)); diff != "" {
			t.Fatalf("without %q: -want +got:\n%s", missing, diff)
		}
		after, err := os.Stat(filepath.Join(layer, "blank-base.vhdx"))
		must(t, err)
		must(t, rootfs.ProcessBaseLayer(t.Context(), layer))
		if again, err := os.Stat(filepath.Join(layer, "blank-base.vhdx")); err != nil || !os.SameFile(again, after) || beforeErr == nil && os.SameFile(before, after) {
			t.Errorf("without %q: made again although all is there, or not made although something was missing: %v", missing, err)
		}
	}
	for _, name := range []string{"Hives", "Hives/System_Base"} {
		e, content, err := rootfs.OpenNT([]string{layer}, name)
		must(t, err)
		if content != nil {
			must(t, content.Close())
		}
		if e.NT == nil {
			t.Errorf("%s has no metadata", name)
		}
	}
	var out bytes.Buffer
	must(t, rootfs.WriteNT(t.Context(), layer, &out))
	if !bytes.Equal(out.Bytes(), stream) {
		t.Error("the layer goes out with other bytes")
	}
	openModel(t, []string{layer}, rootfs.SoftwareHive)
}

// TestBlankDisksElsewhere has other programs read the disks of a base layer.
func TestBlankDisksElsewhere(t *testing.T) {
	t.Parallel()
	programs := testenv.NeedCommand(t, "qemu-img", "vhdiinfo", "mkntfs")
	dir := importStack(t, [][]byte{baseStream(t)})[0]
	must(t, rootfs.ProcessBaseLayer(t.Context(), dir))
	if out, err := exec.Command(programs[0], "check", "-q", filepath.Join(dir, "blank-base.vhdx")).CombinedOutput(); err != nil {
		t.Errorf("qemu-img check: %v: %s", err, out)
	}
	identifier := regexp.MustCompile(`(?m)^\s*(Parent )?[Ii]dentifier\s*: (\S+)$`)
	var ids [][]string
	for _, name := range []string{"blank-base.vhdx", "blank.vhdx"} {
		out, err := exec.Command(programs[1], filepath.Join(dir, name)).CombinedOutput()
		must(t, err)
		for _, m := range identifier.FindAllStringSubmatch(string(out), -1) {
			ids = append(ids, m[1:])
		}
	}
	if len(ids) != 3 || ids[2][0] != "Parent " || ids[2][1] != ids[0][1] {
		t.Errorf("vhdiinfo has the identifiers %q", ids)
	}
}

// TestProcessedImport imports a layer and processes it at once: all of it is there, or nothing.
func TestProcessedImport(t *testing.T) {
	t.Parallel()
	testenv.NeedCommand(t, "mkntfs")
	top := t.TempDir()
	dir := filepath.Join(top, "layer")
	opts := ntOptions()
	opts.Processing = rootfs.Processed
	_, err := rootfs.ImportNT(t.Context(), dir, nil, ntReader(tarOf(t, nt(dirOf("Files")))), opts)
	oneLine(t, err, errdefs.ErrNotFound, "import layer to "+dir+": process base layer: find registry hive Files/Windows/System32/config/DEFAULT")
	empty(t, top)
	_, err = rootfs.ImportNT(t.Context(), dir, nil, ntReader(baseStream(t)), opts)
	must(t, err)
	checkBase(t, dir)
	if diff := cmp.Diff(ofBase(t), names(t, dir)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	e, _, err := rootfs.OpenNT([]string{dir}, "Hives")
	if err != nil || e.NT == nil {
		t.Errorf("Hives is %+v, %v", e, err)
	}
}

func ntReader(stream []byte) *layer.Reader {
	return layer.ReadOptions{Encoding: layer.NT}.NewReader(bytes.NewReader(stream))
}

func dirOf(name string) tar.Header { return dir(name) }

// TestProcessBaseLayerRefuses gives it what is no base layer: the error names what is wrong, and all is as it was.
func TestProcessBaseLayerRefuses(t *testing.T) {
	t.Parallel()
	good := importStack(t, [][]byte{baseStream(t)})[0]
	const sam = "Files/Windows/System32/config/SAM"
	hive, err := os.ReadFile(filepath.Join(good, sam))
	must(t, err)
	soiled := slices.Clone(hive)
	binary.LittleEndian.PutUint32(soiled[4:], 7)
	sum(soiled)
	for what, c := range map[string]struct {
		change func(name string) error
		class  error
		text   string
	}{
		"missing":   {os.Remove, errdefs.ErrNotFound, "find registry hive " + sam},
		"directory": {func(n string) error { return errors.Join(os.Remove(n), os.Mkdir(n, 0o700)) }, errdefs.ErrInvalidArgument, sam},
		"link":      {func(n string) error { return errors.Join(os.Remove(n), os.Symlink("SYSTEM", n)) }, nil, sam},
		"fifo":      {func(n string) error { return errors.Join(os.Remove(n), syscall.Mkfifo(n, 0o600)) }, errdefs.ErrInvalidArgument, sam},
		"text":      {func(n string) error { return os.WriteFile(n, []byte("hive"), 0o600) }, errdefs.ErrInvalidArgument, sam + ": read the hive's base block"},
		"cut off":   {func(n string) error { return os.Truncate(n, 5000) }, regf.ErrCorrupt, sam},
		"dirty":     {func(n string) error { return os.WriteFile(n, soiled, 0o600) }, regf.ErrCorrupt, "dirty"},
	} {
		t.Run(what, func(t *testing.T) {
			dir := importStack(t, [][]byte{baseStream(t)})[0]
			must(t, c.change(filepath.Join(dir, sam)))
			before := names(t, dir)
			oneLine(t, rootfs.ProcessBaseLayer(t.Context(), dir), c.class, "process base layer "+dir, c.text)
			if diff := cmp.Diff(before, names(t, dir)); diff != "" {
				t.Errorf("left behind: %s", diff)
			}
		})
	}
	err = rootfs.ProcessBaseLayer(t.Context(), filepath.Join(good, "nothing"))
	oneLine(t, err, os.ErrNotExist, "process base layer")
}

// sum makes a hive's base block right.
func sum(b []byte) {
	var x uint32
	for i := 0; i < 508; i += 4 {
		x ^= binary.LittleEndian.Uint32(b[i:])
	}
	binary.LittleEndian.PutUint32(b[508:], x)
}

// TestDirtyHive opens a hive whose writer was interrupted, and whose log has the rest.
func TestDirtyHive(t *testing.T) {
	t.Parallel()
	tree := newHive(t, "SYSTEM")
	key, err := tree.Root().Create("Select")
	must(t, err)
	must(t, key.SetValue(regf.Value{Name: "Current", Type: regf.TypeDWord, Data: []byte{1, 0, 0, 0}}))
	after := []byte(treeBytes(t, tree))
	binary.LittleEndian.PutUint32(after[4:], 6)
	binary.LittleEndian.PutUint32(after[8:], 6)
	sum(after)
	before := slices.Clone(after)
	binary.LittleEndian.PutUint32(before[8:], 5)
	clear(before[4096+32:]) // all that is in its bins
	sum(before)
	log := slices.Clone(after[:512])
	binary.LittleEndian.PutUint32(log[28:], 1) // the old form: which sectors are dirty, and they
	sum(log)
	log = append(append(log, "DIRT"...), bytes.Repeat([]byte{0xff}, (len(after)-4096)/512/8)...)
	log = append(append(log, make([]byte, 512-len(log)%512)...), after[4096:]...)

	stream := hiveLayers(t, rootfs.SystemHive, []string{string(before)})[0]
	dir := importStack(t, [][]byte{stream})[0]
	must(t, os.WriteFile(filepath.Join(dir, "Files/Windows/System32/config/system.log1"), log, 0o600))
	want := model{"Select": {"Current": "\x01\x00\x00\x00"}}
	if diff := cmp.Diff(want, openModel(t, []string{dir}, rootfs.SystemHive)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	testenv.NeedCommand(t, "mkntfs")
	must(t, rootfs.ProcessBaseLayer(t.Context(), dir))
	checkBase(t, dir)
	if diff := cmp.Diff(want, openModel(t, []string{dir}, rootfs.SystemHive)); diff != "" {
		t.Errorf("as Hives/System_Base: -want +got:\n%s", diff)
	}
}

// TestProcessBaseLayerTogether processes a layer several times at once.
func TestProcessBaseLayerTogether(t *testing.T) {
	t.Parallel()
	testenv.NeedCommand(t, "mkntfs")
	dir := importStack(t, [][]byte{baseStream(t)})[0]
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := rootfs.ProcessBaseLayer(t.Context(), dir); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	checkBase(t, dir)
	if diff := cmp.Diff(ofBase(t), names(t, dir)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestProcessBaseLayerKilled kills a process at any time: where layout is, all is, and another call makes the rest.
func TestProcessBaseLayerKilled(t *testing.T) {
	if dir := os.Getenv("HCS_TEST_PROCESS_BASE"); dir != "" {
		fmt.Print(halfWay)
		if err := rootfs.ProcessBaseLayer(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Parallel()
	testenv.NeedCommand(t, "mkntfs")
	for round := range 8 {
		dir := importStack(t, [][]byte{baseStream(t)})[0]
		cmd := exec.Command(os.Args[0], "-test.run=^TestProcessBaseLayerKilled$")
		cmd.Env = append(os.Environ(), "HCS_TEST_PROCESS_BASE="+dir)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		_, err = io.ReadFull(out, make([]byte, len(halfWay)))
		must(t, err)
		time.Sleep(time.Duration(round) * 40 * time.Millisecond) // to be killed elsewhere each time
		must(t, cmd.Process.Signal(syscall.SIGKILL))
		_ = cmd.Wait()
		if _, err := os.Stat(filepath.Join(dir, "layout")); err == nil {
			checkBase(t, dir)
		}
		must(t, rootfs.ProcessBaseLayer(t.Context(), dir))
		checkBase(t, dir)
		if diff := cmp.Diff(ofBase(t), names(t, dir)); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
		must(t, os.RemoveAll(dir))
	}
}

// TestProcessBaseLayerDiskFull has room for the layer and not for its disks.
func TestProcessBaseLayerDiskFull(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	testenv.NeedCommand(t, "mkntfs")
	top := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: top})
	for _, size := range []string{"1m", "100m"} { // the volume is full, or the image
		must(t, exec.Command(testenv.NeedCommand(t, "mount")[0], "-t", "tmpfs", "-o", "size="+size, "none", top).Run())
		dir := filepath.Join(top, "layer")
		_, err := importNT(t, dir, nil, baseStream(t))
		must(t, err)
		before := names(t, dir)
		if err := rootfs.ProcessBaseLayer(t.Context(), dir); err == nil {
			t.Errorf("%s are enough", size)
		}
		if diff := cmp.Diff(before, names(t, dir)); diff != "" {
			t.Errorf("%s: left behind: %s", size, diff)
		}
		opts := ntOptions()
		opts.Processing = rootfs.Processed
		if _, err := rootfs.ImportNT(t.Context(), dir+"2", nil, ntReader(baseStream(t)), opts); err == nil {
			t.Errorf("%s are enough to import", size)
		}
		if diff := cmp.Diff([]string{"layer"}, names(t, top)); diff != "" {
			t.Errorf("%s: left behind: %s", size, diff)
		}
		must(t, sys.Unmount(top))
	}
}

func TestConvertToBaseLayer(t *testing.T) {
	t.Parallel()
	testenv.NeedCommand(t, "mkntfs")
	dir := t.TempDir()
	oneLine(t, rootfs.ConvertToBaseLayer(t.Context(), dir), errdefs.ErrNotFound, "convert "+dir+" to base layer", "Files")
	must(t, os.MkdirAll(filepath.Join(dir, "Files/windows/system32/Config"), 0o700))
	system := treeBytes(t, newHive(t, "mine"))
	must(t, os.WriteFile(filepath.Join(dir, "Files/windows/system32/Config/system"), []byte(system), 0o600))
	must(t, rootfs.ConvertToBaseLayer(t.Context(), dir))
	if got, err := os.ReadFile(filepath.Join(dir, "Hives/System_Base")); err != nil || string(got) != system {
		t.Errorf("the hive that was there is another one: %v", err)
	}
	for _, name := range rootfs.HiveNames() {
		if got := openModel(t, []string{dir}, name); len(got) > 0 {
			t.Errorf("%s has %v", name, got)
		}
	}
	if got := strings.Join(names(t, filepath.Join(dir, "Files/windows/system32/Config")), " "); got != "DEFAULT SAM SECURITY SOFTWARE system" {
		t.Errorf("the hives are %s", got)
	}
	isProperBase(t, dir)
	imported := importStack(t, [][]byte{tarOf(t, nt(dirOf("Files")))})[0]
	oneLine(t, rootfs.ConvertToBaseLayer(t.Context(), imported), errdefs.ErrNotFound, "imported layer has no registry hive")
}

// isProperBase holds a base layer that was made of plain files against one that is imported from what it goes out as.
func isProperBase(t *testing.T, dir string) {
	t.Helper()
	l, err := rootfs.InspectLayer(dir)
	must(t, err)
	if l.Encoding != layer.NT || l.Scratch || l.Entries == 0 || len(l.Parents) > 0 {
		t.Errorf("it is %+v", l)
	}
	var first, again bytes.Buffer
	id, err := rootfs.WriteLayer(t.Context(), dir, nil, &first)
	must(t, err)
	copied := importStack(t, [][]byte{first.Bytes()})[0]
	if same, err := rootfs.WriteLayer(t.Context(), copied, nil, &again); err != nil || same != id {
		t.Errorf("imported again it is %s, not %s: %v", same, id, err)
	}
	r := layer.ReadOptions{Encoding: layer.NT, Strict: true}.NewReader(&first)
	for e, err := range r.All() {
		must(t, err)
		if e.Kind == layer.Hardlink {
			continue
		}
		was, content, err := rootfs.OpenNT([]string{dir}, e.Name)
		must(t, err)
		if content != nil {
			must(t, content.Close())
		}
		if e.Kind == layer.Symlink && os.Geteuid() != 0 { // which can have no attribute
			if was.Kind != layer.Symlink || was.Link != e.Link {
				t.Errorf("%s leads to %q, not %q", e.Name, was.Link, e.Link)
			}
			continue
		}
		if diff := cmp.Diff(e.NT, was.NT, cmpopts.IgnoreFields(ntfs.Meta{}, "Streams")); diff != "" || e.NT.SecurityDescriptor == nil {
			t.Errorf("%s: -stream +disk:\n%s", e.Name, diff)
		}
	}
}

// TestConvertPlain makes a base layer of files of every kind, with a utility VM, and refuses what Windows does not have.
func TestConvertPlain(t *testing.T) {
	t.Parallel()
	testenv.NeedCommand(t, "mkntfs")
	dir := t.TempDir()
	for name, content := range map[string]string{
		"Files/app/a.txt": "a", "Files/app/empty": "", "UtilityVM/Files/EFI/Microsoft/Boot/BCD": treeBytes(t, newHive(t, "boot")), "UtilityVM/Files/x": "x",
	} {
		must(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	must(t, os.Link(filepath.Join(dir, "UtilityVM/Files/x"), filepath.Join(dir, "UtilityVM/Files/y")))
	must(t, os.Link(filepath.Join(dir, "Files/app/a.txt"), filepath.Join(dir, "Files/app/b.txt")))
	must(t, os.Symlink("app", filepath.Join(dir, "Files/link")))
	must(t, rootfs.ConvertToBaseLayer(t.Context(), dir))
	isProperBase(t, dir)
	checkBase(t, dir)
	for _, name := range []string{"UtilityVM/Files/y", "Files/app/b.txt", "Files/link"} {
		if _, content, err := rootfs.OpenNT([]string{dir}, name); err != nil {
			t.Error(err)
		} else if content != nil {
			must(t, content.Close())
		}
	}

	bad := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(bad, "Files"), 0o755))
	oneLineOf := func(text string) {
		t.Helper()
		err := rootfs.ConvertToBaseLayer(t.Context(), bad)
		if !errdefs.IsInvalidArgument(err) && !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: it does not say %q", err, text)
		}
		if _, err := os.Lstat(filepath.Join(bad, "layer.json")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("there is a record: %v", err)
		}
		if _, err := rootfs.InspectLayer(bad); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "nobody has imported") {
			t.Errorf("it is looked at: %v", err)
		}
	}
	must(t, os.WriteFile(filepath.Join(bad, "Files/a:b"), nil, 0o600))
	oneLineOf("a:b")
	must(t, os.Rename(filepath.Join(bad, "Files/a:b"), filepath.Join(bad, "Files/Readme")))
	must(t, os.WriteFile(filepath.Join(bad, "Files/README"), nil, 0o600))
	oneLineOf("Files/README")
	must(t, os.Remove(filepath.Join(bad, "Files/README")))
	must(t, os.RemoveAll(filepath.Join(bad, "Files/Windows")))
	must(t, os.MkdirAll(filepath.Join(bad, "UtilityVM/Files"), 0o755))
	oneLineOf("boot configuration")
	if got := names(t, bad); len(got) != 2 {
		t.Errorf("without a boot configuration work begins: %v", got)
	}
}

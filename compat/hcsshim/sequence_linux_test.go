package hcsshim_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/compat/hcsshim"
	"github.com/hostcompute/hcs/compat/hcsshim/pkg/ociwclayer"
	"github.com/hostcompute/hcs/compat/hcsshim/winio/backuptar"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/regf"
	"github.com/hostcompute/hcs/rootfs"
)

// What the layers of the test image hold, and what is in their files. Names ending in a slash are directories; "-name" is
// removed, "name=target" a hard link.
var (
	baseNames = []string{
		"Files/", "Files/Windows/", "Files/Windows/notepad.exe", "Files/Windows/edit.exe=Files/Windows/notepad.exe", "Files/old.txt",
		"Files/Windows/System32/", "Files/Windows/System32/config/", "Files/Windows/System32/config/DEFAULT",
		"Files/Windows/System32/config/SAM", "Files/Windows/System32/config/SECURITY", "Files/Windows/System32/config/SOFTWARE",
		"Files/Windows/System32/config/SYSTEM",
	}
	childNames = []string{"Files/", "-Files/old.txt", "Files/app.exe", "Files/app2.exe=Files/Windows/notepad.exe", "Hives/"}
)

// contentOf is what is in a file: a hive without keys where a system has a registry hive.
func contentOf(t *testing.T, name string) string {
	t.Helper()
	if !strings.Contains(name, "/config/") && !strings.HasSuffix(name, "/BCD") {
		return "content of " + name
	}
	tree, err := regf.Minimal(name, 0)
	check(t, err)
	data, err := tree.Bytes()
	check(t, err)
	return string(data)
}

// imageLayer is a layer as a Windows image has it.
func imageLayer(t *testing.T, names []string) []byte {
	t.Helper()
	sd, err := ntfs.ParseSDDL("O:BAG:SYD:(A;OICI;FA;;;BA)(A;OICI;0x1200a9;;;BU)")
	check(t, err)
	descriptor, err := sd.Append(nil)
	check(t, err)
	at := time.Date(2021, 3, 4, 5, 6, 7, 800, time.UTC)
	var out bytes.Buffer
	w := layer.NewWriter(&out)
	for _, name := range names {
		e := &layer.Entry{Name: name, ModTime: at, AccessTime: at, ChangeTime: at, NT: &ntfs.Meta{
			Attributes: ntfs.AttrArchive, CreationTime: at, SecurityDescriptor: descriptor,
		}}
		content := ""
		if dir, ok := strings.CutSuffix(name, "/"); ok {
			e.Kind, e.Name, e.NT.Attributes = layer.Dir, dir, ntfs.AttrDirectory
		} else if gone, ok := strings.CutPrefix(name, "-"); ok {
			*e = layer.Entry{Kind: layer.Whiteout, Name: gone, NT: &ntfs.Meta{}}
		} else if link, target, ok := strings.Cut(name, "="); ok {
			e.Kind, e.Name, e.Link, e.NT.SecurityDescriptor = layer.Hardlink, link, target, nil
		} else {
			content = contentOf(t, name)
			e.Size = int64(len(content))
		}
		check(t, w.Write(e, strings.NewReader(content)))
	}
	check(t, w.Close())
	return out.Bytes()
}

// importAsDocker does what docker's windows graph driver does with a layer's tar stream.
func importAsDocker(info hcsshim.DriverInfo, id string, stream []byte, parents []string) error {
	w, err := hcsshim.NewLayerWriter(info, id, parents)
	if err != nil {
		return err
	}
	return errors.Join(copyAsDocker(w, tar.NewReader(bytes.NewReader(stream))), w.Close())
}

func copyAsDocker(w hcsshim.LayerWriter, t *tar.Reader) error {
	hdr, err := t.Next()
	for err == nil {
		base := hdr.Name[strings.LastIndexByte(hdr.Name, '/')+1:]
		switch {
		case strings.HasPrefix(base, ".wh."):
			name := hdr.Name[:len(hdr.Name)-len(base)] + base[len(".wh."):]
			if err = w.Remove(strings.ReplaceAll(name, "/", `\`)); err == nil {
				hdr, err = t.Next()
			}
		case hdr.Typeflag == tar.TypeLink:
			if err = w.AddLink(strings.ReplaceAll(hdr.Name, "/", `\`), strings.ReplaceAll(hdr.Linkname, "/", `\`)); err == nil {
				hdr, err = t.Next()
			}
		default:
			name, _, info, e := backuptar.FileInfoFromHeader(hdr)
			if e == nil {
				e = w.Add(strings.ReplaceAll(name, "/", `\`), info)
			}
			if e != nil {
				return e
			}
			hdr, err = backuptar.WriteBackupStreamFromTarFile(w, t, hdr)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// exportAsDocker does what the graph driver does to make a tar stream of a layer.
func exportAsDocker(t *testing.T, info hcsshim.DriverInfo, id string, parents []string) []byte {
	t.Helper()
	r, err := hcsshim.NewLayerReader(info, id, parents)
	check(t, err)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for {
		name, size, attributes, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		name = strings.ReplaceAll(name, `\`, "/")
		if attributes == nil {
			check(t, w.WriteHeader(&tar.Header{Name: path.Join(path.Dir(name), ".wh."+path.Base(name))}))
			continue
		}
		check(t, backuptar.WriteTarFileFromBackupStream(w, r, name, size, attributes))
	}
	check(t, errors.Join(w.Close(), r.Close()))
	return out.Bytes()
}

// tree returns what a directory holds: names, and what is in files and links.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	check(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		content := []byte("/")
		switch {
		case d.Type() == fs.ModeSymlink:
			var target string
			target, err = os.Readlink(name)
			content = []byte(target)
		case d.Type().IsRegular():
			content, err = os.ReadFile(name)
		}
		all = append(all, fmt.Sprintf("%s %q", strings.TrimPrefix(name, dir), content))
		return err
	}))
	return all
}

// checkShows mounts layers and looks at the tree.
func checkShows(t *testing.T, info hcsshim.DriverInfo, layers, want []string) {
	t.Helper()
	const id = "look"
	check(t, hcsshim.CreateSandboxLayer(info, id, layers[0], layers))
	check(t, up(info, id, layers))
	mount, err := hcsshim.GetLayerMountPath(info, id)
	check(t, err)
	if diff := cmp.Diff(want, tree(t, mount)); diff != "" {
		t.Errorf("the layers show -want +got:\n%s", diff)
	}
	check(t, errors.Join(down(info, id), hcsshim.DestroyLayer(info, id)))
}

// listAsDocker reads a layer as the graph driver's Changes does: names, with "-" before those that it removes, and contents.
func listAsDocker(t *testing.T, info hcsshim.DriverInfo, id string, parents []string) (all []string) {
	t.Helper()
	r, err := hcsshim.NewLayerReader(info, id, parents)
	check(t, err)
	for {
		name, size, attributes, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		if attributes == nil {
			all = append(all, "-"+name)
			continue
		}
		var out bytes.Buffer
		tw := tar.NewWriter(&out)
		check(t, backuptar.WriteTarFileFromBackupStream(tw, r, name, size, attributes))
		check(t, tw.Close())
		tr := tar.NewReader(&out)
		_, err = tr.Next()
		check(t, err)
		content, err := io.ReadAll(tr)
		check(t, err)
		all = append(all, name+": "+string(content))
	}
	check(t, r.Close())
	return all
}

// TestDockerSequence is what docker's windows graph driver does with an image of two layers and a container.
func TestDockerSequence(t *testing.T) {
	info := home(t)
	testenv.NeedKernel(t, testenv.LoopDevices)
	testenv.NeedCommand(t, "mkfs.xfs")
	dir := func(id string) string { return filepath.Join(info.HomeDir, id) }
	check(t, hcsshim.CreateLayer(info, "layer-1", ""))
	check(t, importAsDocker(info, "layer-1", imageLayer(t, baseNames), nil))
	check(t, hcsshim.CreateLayer(info, "layer-2", "layer-1"))
	check(t, importAsDocker(info, "layer-2", imageLayer(t, childNames), []string{dir("layer-1")}))

	parents := []string{dir("layer-2"), dir("layer-1")}
	check(t, hcsshim.CreateSandboxLayer(info, "container", parents[0], parents))
	check(t, hcsshim.ExpandSandboxSize(info, "container", 20<<30))
	check(t, up(info, "container", parents))
	mount, err := hcsshim.GetLayerMountPath(info, "container")
	check(t, err)
	for name, want := range map[string]string{
		"app.exe": "content of Files/app.exe", "app2.exe": "content of Files/Windows/notepad.exe",
		"Windows/edit.exe": "content of Files/Windows/notepad.exe", "old.txt": "",
	} {
		if b, err := os.ReadFile(filepath.Join(mount, name)); string(b) != want || (err != nil) != (want == "") {
			t.Errorf("%s is %q, %v", name, b, err)
		}
	}
	check(t, os.WriteFile(filepath.Join(mount, "new.txt"), []byte("new"), 0o600))
	check(t, os.Link(filepath.Join(mount, "new.txt"), filepath.Join(mount, "newer.txt")))
	check(t, os.Remove(filepath.Join(mount, "app2.exe")))
	check(t, os.Rename(filepath.Join(mount, "app.exe"), filepath.Join(mount, "Windows", "app.exe")))
	if err := hcsshim.DestroyLayer(info, "layer-1"); code(err) != 0x20 {
		t.Errorf("the base of a mounted layer is destroyed: %v", err)
	}
	if err := hcsshim.ExportLayer(info, "container", dir("folder"), parents); code(err) != 0x139f {
		t.Errorf("a prepared layer is exported: %v", err)
	}
	shown := tree(t, mount)
	check(t, hcsshim.UnprepareLayer(info, "container"))
	changes := []string{
		`Files: `, `-Files\app.exe`, `-Files\app2.exe`, `Files\Windows: `, `Files\Windows\app.exe: content of Files/app.exe`,
		`Files\new.txt: new`, `Files\newer.txt: new`, `Hives: `,
	}
	if diff := cmp.Diff(changes, throughFolder(t, info, "container", parents)); diff != "" {
		t.Errorf("the container's layer: -want +got:\n%s", diff)
	}
	check(t, hcsshim.CreateLayer(info, "layer-3", "layer-2"))
	check(t, importAsDocker(info, "layer-3", exportAsDocker(t, info, "container", parents), parents))
	check(t, hcsshim.DeactivateLayer(info, "container"))
	if err := hcsshim.ExportLayer(info, "container", dir("folder"), parents); code(err) != 0x15 {
		t.Errorf("a layer that is not active is exported: %v", err)
	}
	checkShows(t, info, append([]string{dir("layer-3")}, parents...), shown)

	check(t, hcsshim.ActivateLayer(info, "layer-2"))
	want := []string{
		`Files: `, `-Files\old.txt`, `Files\app.exe: content of Files/app.exe`,
		`Files\app2.exe: content of Files/Windows/notepad.exe`, `Hives: `,
	}
	if diff := cmp.Diff(want, listAsDocker(t, info, "layer-2", parents[1:])); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	check(t, hcsshim.DeactivateLayer(info, "layer-2"))
	throughFolder(t, info, "layer-2", parents[1:])

	for _, id := range []string{"container", "layer-3", "layer-2", "layer-1"} {
		check(t, os.Rename(dir(id), dir(id+"-removing")))
		check(t, hcsshim.DestroyLayer(info, id+"-removing"))
	}
}

// throughFolder exports a layer to a transport folder, as docker did before there were readers and writers, and imports it
// under another name: the copy reads the same.
func throughFolder(t *testing.T, info hcsshim.DriverInfo, id string, parents []string) []string {
	t.Helper()
	folder, again := filepath.Join(info.HomeDir, "folder"), id+"-again"
	check(t, os.Mkdir(folder, 0o700))
	check(t, hcsshim.ExportLayer(info, id, folder, parents))
	check(t, hcsshim.ImportLayer(info, again, folder, parents))
	list := listAsDocker(t, info, id, parents)
	if diff := cmp.Diff(list, listAsDocker(t, info, again, parents)); diff != "" {
		t.Errorf("%s through a folder: -want +got:\n%s", id, diff)
	}
	check(t, hcsshim.DestroyLayer(info, again))
	check(t, os.RemoveAll(folder))
	return list
}

// TestTransportFolder exports and imports out of order, and what is none.
func TestTransportFolder(t *testing.T) {
	t.Parallel()
	info := hcsshim.DriverInfo{HomeDir: t.TempDir()}
	path := func(id string) string { return filepath.Join(info.HomeDir, id) }
	streams := map[string][]byte{"base": imageLayer(t, baseNames[:5]), "child": imageLayer(t, childNames)}
	for _, id := range slices.Sorted(maps.Keys(streams)) {
		stream := streams[id]
		var parents []string
		if id == "child" {
			parents = []string{path("base")}
		}
		r := layer.ReadOptions{Encoding: layer.NT}.NewReader(bytes.NewReader(stream))
		_, err := rootfs.ImportNT(t.Context(), path(id), parents, r, ntOptions())
		check(t, err)
	}
	parents := []string{path("base")}
	check(t, hcsshim.ExportLayer(info, "child", path("folder"), parents))
	check(t, hcsshim.ExportLayer(info, "base", path("base-folder"), nil))
	check(t, os.Mkdir(path("empty"), 0o700))
	check(t, os.WriteFile(path("file"), nil, 0o600))
	for _, c := range []struct {
		name string
		err  error
		want syscall.Errno
	}{
		{"export over a folder", hcsshim.ExportLayer(info, "child", path("folder"), parents), 0xb7},
		{"export over a file", hcsshim.ExportLayer(info, "child", path("file"), parents), 0xb7},
		{"export of nothing", hcsshim.ExportLayer(info, "nothing", path("x"), parents), 0x3},
		{"export without a parent", hcsshim.ExportLayer(info, "child", path("x"), []string{path("nothing")}), 0x3},
		{"export to nowhere", hcsshim.ExportLayer(info, "child", path("no/x"), parents), 0x3},
		{"import over a layer", hcsshim.ImportLayer(info, "child", path("folder"), parents), 0xb7},
		{"import over a file", hcsshim.ImportLayer(info, "file", path("folder"), parents), 0xb7},
		{"import of nothing", hcsshim.ImportLayer(info, "x", path("nothing"), parents), 0x3},
		{"import of no folder", hcsshim.ImportLayer(info, "x", path("empty"), parents), 0x57},
		{"import without a parent", hcsshim.ImportLayer(info, "x", path("folder"), []string{path("nothing")}), 0x3},
		{"tombstones in a base layer", hcsshim.ImportLayer(info, "x", path("folder"), nil), 0x57},
	} {
		if code(c.err) != c.want {
			t.Errorf("%s: %v, want code %#x", c.name, c.err, uintptr(c.want))
		}
	}
	check(t, hcsshim.ImportLayer(info, "base-again", path("base-folder"), nil))
	check(t, hcsshim.ImportLayer(info, "empty", path("folder"), parents))
	left, err := os.ReadDir(info.HomeDir)
	check(t, err)
	if len(left) != 7 {
		t.Errorf("there is now %v", left)
	}
}

func ntOptions() rootfs.NTOptions {
	if os.Geteuid() == 0 {
		return rootfs.NTOptions{}
	}
	return rootfs.NTOptions{UserXattr: true, Owner: rootfs.IgnoreOwner}
}

// TestContainerdSequence is what containerd's windows snapshotter and differ do with an image of two layers and a container
// that is committed: the scratch layer is a copy of the base's blank disk, and the image's new layer comes as a tar stream.
func TestContainerdSequence(t *testing.T) {
	info := home(t)
	dir := func(id string) string { return filepath.Join(info.HomeDir, id) }
	for i, names := range [][]string{baseNames, childNames} {
		parents := []string{dir("1")}[:i]
		_, err := ociwclayer.ImportLayerFromTar(t.Context(), bytes.NewReader(imageLayer(t, names)), dir(fmt.Sprint(i+1)), parents)
		check(t, err)
	}
	parents := []string{dir("2"), dir("1")}
	check(t, os.Mkdir(dir("3"), 0o700))
	check(t, os.WriteFile(filepath.Join(dir("3"), "sandbox.vhdx"), nil, 0o600))
	check(t, up(info, "3", parents))
	mount, err := hcsshim.GetLayerMountPath(info, "3")
	check(t, err)
	check(t, os.MkdirAll(filepath.Join(mount, "data", "deep"), 0o755))
	check(t, os.WriteFile(filepath.Join(mount, "data", "deep", "new"), []byte("new"), 0o600))
	check(t, os.Symlink("deep/new", filepath.Join(mount, "data", "link")))
	check(t, os.Remove(filepath.Join(mount, "Windows", "edit.exe")))
	var out bytes.Buffer
	if err := ociwclayer.ExportLayerToTar(t.Context(), &out, dir("3"), parents); err == nil || out.Len() > 0 {
		t.Errorf("a layer that is in use is exported: %v", err)
	}
	shown := tree(t, mount)
	check(t, down(info, "3"))
	check(t, ociwclayer.ExportLayerToTar(t.Context(), &out, dir("3"), parents)) // which activates it
	var again bytes.Buffer
	check(t, hcsshim.ActivateLayer(info, "3"))
	check(t, ociwclayer.ExportLayerToTar(t.Context(), &again, dir("3"), parents))
	if !bytes.Equal(out.Bytes(), again.Bytes()) {
		t.Error("exported again, the layer is another")
	}
	check(t, down(info, "3"))
	_, err = ociwclayer.ImportLayerFromTar(t.Context(), &out, dir("4"), parents)
	check(t, err)
	checkShows(t, info, append([]string{dir("4")}, parents...), shown)
}

// TestImageLayer imports layers from an image and exports them as they were; what is refused leaves the directory as it was.
func TestImageLayer(t *testing.T) {
	t.Parallel()
	info := hcsshim.DriverInfo{HomeDir: t.TempDir()}
	base, child := imageLayer(t, baseNames), imageLayer(t, childNames)
	path := func(id string) string { return filepath.Join(info.HomeDir, id) }
	check(t, os.Mkdir(path("1"), 0o700))
	if _, err := ociwclayer.ImportLayerFromTar(t.Context(), bytes.NewReader(base[:len(base)/2]), path("1"), nil); err == nil {
		t.Error("half a layer is imported")
	}
	size, err := ociwclayer.ImportLayerFromTar(t.Context(), bytes.NewReader(base), path("1"), nil)
	if err != nil || size == 0 {
		t.Fatalf("%d bytes, %v", size, err)
	}
	_, err = ociwclayer.ImportLayerFromTar(t.Context(), bytes.NewReader(child), path("2"), []string{path("1")})
	check(t, err)
	check(t, os.WriteFile(path("file"), nil, 0o600))
	for _, taken := range []string{"2", "file"} {
		if _, err := ociwclayer.ImportLayerFromTar(t.Context(), bytes.NewReader(child), path(taken), []string{path("1")}); err == nil {
			t.Errorf("a layer is imported over %s", taken)
		}
		if _, err := os.Stat(path(taken)); err != nil {
			t.Error(err)
		}
	}
	for id, want := range map[string][]byte{"1": base, "2": child} {
		var out bytes.Buffer
		check(t, ociwclayer.ExportLayerToTar(t.Context(), &out, path(id), nil))
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("layer %s has other bytes", id)
		}
	}
}

// TestLayerWriterFails writes layers that are none: the directory is as empty as it was.
func TestLayerWriterFails(t *testing.T) {
	t.Parallel()
	info := hcsshim.DriverInfo{HomeDir: t.TempDir()}
	check(t, hcsshim.CreateLayer(info, "x", ""))
	for _, names := range [][]string{
		{"Files/", "-Files/old.txt"},                // a base layer removes nothing
		{"Files/", "Files/a=Files/nothing"},         // no target
		{"Files/", "Files/x", "Files/y", "Files/x"}, // twice
	} {
		err := importAsDocker(info, "x", imageLayer(t, names), nil)
		if err == nil {
			t.Errorf("%q is a layer", names)
		}
		entries, err := os.ReadDir(filepath.Join(info.HomeDir, "x"))
		if err != nil || len(entries) > 0 {
			t.Errorf("%q left %v, %v", names, entries, err)
		}
	}
	left, err := os.ReadDir(info.HomeDir)
	check(t, err)
	if slices.ContainsFunc(left, func(e os.DirEntry) bool { return e.Name() != "x" }) {
		t.Errorf("left behind: %v", left)
	}
}

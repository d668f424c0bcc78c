package rootfs_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gomtree "github.com/vbatts/go-mtree"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// unpacked unpacks an image and returns its tree and its manifest.
func unpacked(t testing.TB, opts rootfs.TreeOptions, blobs ...[]byte) (dir string, manifest []byte) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "tree")
	t.Cleanup(func() { must(t, removeTree(dir)) })
	var buf bytes.Buffer
	opts.Mtree = &buf
	_, err := rootfs.UnpackTree(t.Context(), dir, blobsOf(blobs...), opts)
	must(t, err)
	return dir, buf.Bytes()
}

// checkManifest has go-mtree compare a tree with a manifest, by all its keywords.
func checkManifest(t testing.TB, dir string, manifest []byte) {
	t.Helper()
	spec, err := gomtree.ParseSpec(bytes.NewReader(manifest))
	must(t, err)
	deltas, err := gomtree.Check(dir, spec, nil, nil)
	must(t, err)
	for _, d := range deltas {
		t.Errorf("%v %s: %v", d.Type(), d.Path(), d.Diff())
	}
	if t.Failed() {
		t.Logf("%s", manifest)
	}
}

// rich is an image with something of every kind.
func rich(t testing.TB) [][]byte {
	t.Helper()
	xattr := tar.Header{Name: "d/x", Gname: "y", Mode: 0o4755, PAXRecords: map[string]string{"SCHILY.xattr.user.a b": "1\x00"}}
	odd := dir("d/odd #*\\\n ä\xff")
	odd.Mode, odd.ModTime, odd.Format = 0o1711, time.Unix(-7, 0), tar.FormatGNU
	big := file("big", strings.Repeat("0123456789abcdef", 20000))
	return [][]byte{
		tarOf(t, dir("d"), file("d/f", "old"), hardlink("d/h", "d/f"), symlink("l", "a b\\"), fifo("p"), big, odd, file("gone", "x"), dir("e")),
		tarOf(t, dir("d"), file("d/f", "new"), xattr, wh("gone"), hardlink("i", "d/x"), file("n/o/p", "q")),
	}
}

func TestManifest(t *testing.T) {
	t.Parallel()
	dir, manifest := unpacked(t, rootfs.TreeOptions{}, rich(t)...)
	checkManifest(t, dir, manifest)
	link := tarOf(t, symlink("l", "d"), file("l/x", "y"))
	dir, manifest = unpacked(t, rootfs.TreeOptions{}, append(rich(t), link)...) // in order
	checkManifest(t, dir, manifest)
}

func TestManifestOfDebian(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	blob, err := os.ReadFile(testenv.DebianLayer(t))
	must(t, err)
	dir, manifest := unpacked(t, rootfs.TreeOptions{}, blob)
	checkManifest(t, dir, manifest)
	changes, err := rootfs.Changes(t.Context(), dir, bytes.NewReader(manifest), rootfs.ChangeOptions{})
	must(t, err)
	if len(changes) != 0 {
		t.Errorf("changes of nothing: %v", changes)
	}
}

func changesOf(t testing.TB, dir string, manifest []byte) string {
	t.Helper()
	changes, err := rootfs.Changes(t.Context(), dir, bytes.NewReader(manifest), rootfs.ChangeOptions{})
	must(t, err)
	var s []string
	for _, c := range changes {
		s = append(s, fmt.Sprintf("%.1s %s", c.Kind, c.Name))
	}
	return strings.Join(s, ", ")
}

func TestChanges(t *testing.T) {
	t.Parallel()
	keep := func(name string, change func() error) func(string) error { // as one who hides it would
		return func(dir string) error {
			st, err := os.Lstat(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			if err := change(); err != nil {
				return err
			}
			return os.Chtimes(filepath.Join(dir, name), st.ModTime(), st.ModTime())
		}
	}
	for _, c := range []struct {
		name   string
		change func(dir string) error
		want   string
	}{
		{"nothing", func(string) error { return nil }, ""},
		{"content", func(dir string) error {
			name := filepath.Join(dir, "d/f")
			return keep("d/f", func() error { return os.WriteFile(name, []byte("abc"), 0) })(dir)
		}, "m d/f"},
		{"mode", func(dir string) error { return os.Chmod(filepath.Join(dir, "big"), 0o600) }, "m big"},
		{"touched back", keep("big", func() error { return nil }), ""},
		{"gone", func(dir string) error { return os.Remove(filepath.Join(dir, "big")) }, "m ., d big"},
		{"gone with all", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "n")) }, "m ., d n"},
		{"new", func(dir string) error { return os.WriteFile(filepath.Join(dir, "e/new"), nil, 0o600) }, "m e, a e/new"},
		{"file for directory", func(dir string) error {
			name := filepath.Join(dir, "n")
			if err := os.RemoveAll(name); err != nil {
				return err
			}
			return os.WriteFile(name, nil, 0o600)
		}, "m ., m n"},
		{"link", func(dir string) error {
			name := filepath.Join(dir, "l")
			if err := os.Remove(name); err != nil {
				return err
			}
			return os.Symlink("a b/", name)
		}, "m ., m l"},
		{"another name", func(dir string) error { return os.Link(filepath.Join(dir, "big"), filepath.Join(dir, "e/big")) }, "m big, m e, a e/big"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, manifest := unpacked(t, rootfs.TreeOptions{}, rich(t)...)
			must(t, c.change(dir))
			if got := changesOf(t, dir, manifest); got != c.want {
				t.Errorf("changes are %q, want %q", got, c.want)
			}
			if got := changesOf(t, dir, withoutComments(manifest)); got != c.want {
				t.Errorf("by content, changes are %q, want %q", got, c.want)
			}
		})
	}
}

// withoutComments makes a manifest as another program would.
func withoutComments(manifest []byte) []byte {
	var b []byte
	for line := range bytes.Lines(manifest) {
		if !bytes.HasPrefix(line, []byte("#")) {
			b = append(b, line...)
		}
	}
	return b
}

// TestRepack changes trees at random, and applies the changes as a layer to the image: the result has to be the changed tree.
// TestChangedDevices has devices become others, of which nothing else tells, and equal ones.
func TestChangedDevices(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	when := time.Unix(1_000_000_000, 0)
	device := func(name string, kind byte, minor int64) tar.Header {
		return tar.Header{Typeflag: kind, Name: name, Mode: 0o600, Devmajor: 1, Devminor: minor, ModTime: when}
	}
	image := [][]byte{tarOf(t, device("c", tar.TypeChar, 3), device("b", tar.TypeBlock, 3), device("same", tar.TypeChar, 3))}
	inOrder := append(slices.Clip(image), tarOf(t, dir("d"), symlink("l", "d"), file("m", "")), tarOf(t, file("l/x", "y")))
	for _, blobs := range [][][]byte{image, inOrder} {
		dir, manifest := unpacked(t, rootfs.TreeOptions{}, blobs...)
		top, err := os.Stat(dir)
		must(t, err)
		for name, dev := range map[string]int{"c": syscall.S_IFCHR | 5<<32, "b": syscall.S_IFBLK | 4<<32, "same": syscall.S_IFCHR | 3<<32} {
			path := filepath.Join(dir, name)
			must(t, os.Remove(path))
			must(t, syscall.Mknod(path, uint32(dev)|0o600, 1<<8|dev>>32))
			must(t, os.Chtimes(path, when, when))
		}
		must(t, os.Chtimes(dir, top.ModTime(), top.ModTime()))
		if got := changesOf(t, dir, manifest); got != "m b, m c" {
			t.Errorf("changes are %q", got)
		}
	}
}

func TestRepack(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	for i := range 40 {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		dir, manifest := unpacked(t, rootfs.TreeOptions{}, rich(t)...)
		want := mangle(t, random, dir)
		changes, err := rootfs.Changes(t.Context(), dir, bytes.NewReader(manifest), rootfs.ChangeOptions{})
		must(t, err)
		delta := emitted(t, dir, changes, rootfs.ChangeOptions{})
		again, _ := unpacked(t, rootfs.TreeOptions{}, append(rich(t), delta)...)
		compare(t, seconds(listing(t, again, view{times: true})), seconds(want))
		if second := emitted(t, dir, changes, rootfs.ChangeOptions{}); !bytes.Equal(delta, second) {
			t.Error("the same changes give another layer")
		}
		if t.Failed() {
			t.Fatalf("seed %d, tree %d: changes %v", seed, i, changes)
		}
	}
}

// seconds cuts the times of a listing: the layer keeps them, the manifest whole seconds.
func seconds(lines map[string]string) map[string]string {
	for name, line := range lines {
		if i := strings.LastIndexByte(line, '.'); i >= 0 && strings.HasPrefix(line, "dir") {
			lines[name] = line[:i]
		}
	}
	return lines
}

func mangle(t testing.TB, random *rand.Rand, dir string) map[string]string {
	t.Helper()
	names := []string{"d", "d/f", "d/x", "i", "l", "p", "big", "e", "n", "n/o", "n/o/p", "e/new", "new"}
	for range random.IntN(5) {
		name := filepath.Join(dir, names[random.IntN(len(names))])
		if st, err := os.Lstat(filepath.Dir(name)); err != nil || !st.IsDir() {
			continue
		}
		switch random.IntN(5) {
		case 0:
			must(t, removeTree(name))
		case 1:
			must(t, removeTree(name))
			if os.MkdirAll(name, 0o700) == nil {
				must(t, os.WriteFile(filepath.Join(name, "in"), []byte("side"), 0o640))
			}
		case 2:
			must(t, removeTree(name))
			_ = os.WriteFile(name, []byte(name), 0o644)
		case 3:
			if st, err := os.Lstat(name); err == nil && st.Mode()&os.ModeSymlink == 0 {
				must(t, os.Chmod(name, 0o711))
			}
		case 4:
			_ = os.Link(filepath.Join(dir, "d/h"), name)
		}
	}
	return listing(t, dir, view{times: true})
}

// emitted is a layer of the changes.
func emitted(t testing.TB, dir string, changes []rootfs.Change, opts rootfs.ChangeOptions) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := layer.NewWriter(&buf)
	must(t, rootfs.EmitChanges(t.Context(), dir, changes, opts, func(e *layer.Entry, r io.Reader) error { return w.Write(e, r) }))
	must(t, w.Close())
	return buf.Bytes()
}

// TestRootless unpacks an image of many owners as one who may give nothing away, and reads it back.
func TestRootless(t *testing.T) {
	t.Parallel()
	locked := dir("locked")
	locked.Mode, locked.Uid = 0o111, 42
	secret := tar.Header{Name: "locked/secret", Gname: "x", Mode: 0o200, Uid: 7, Gid: 8}
	device := char("null", 1, 3)
	blob := tarOf(t, locked, secret, device, symlink("l", "x"), fifo("p"))
	opts := rootfs.TreeOptions{Rootless: true}
	dir, manifest := unpacked(t, opts, blob)
	checkable := os.Geteuid() == 0 // go-mtree does not get into what is locked
	if checkable {
		checkManifest(t, dir, manifest)
	}
	if st, err := os.Lstat(filepath.Join(dir, "null")); err != nil || st.Mode() != 0 {
		t.Errorf("the device is %v, %v", st, err)
	}
	change := rootfs.ChangeOptions{Rootless: true}
	for _, m := range [][]byte{manifest, withoutComments(manifest)} {
		changes, err := rootfs.Changes(t.Context(), dir, bytes.NewReader(m), change)
		must(t, err)
		if len(changes) > 0 {
			t.Errorf("changes of nothing: %v", changes)
		}
	}
	if os.Geteuid() == 0 { // who can make a file somebody else's
		must(t, os.Lchown(filepath.Join(dir, "p"), 98, 99))
	}
	all := []rootfs.Change{{Name: "locked"}, {Name: "locked/secret"}, {Name: "p"}}
	r := layer.NewReader(bytes.NewReader(emitted(t, dir, all, change)), layer.Limits{})
	for e, err := range r.All() {
		must(t, err)
		wantMode := map[string]uint32{"locked": 0o111, "locked/secret": 0o200, "p": 0o644}[e.Name]
		base := uint32(os.Geteuid())
		wantUID := map[string]uint32{"locked": base + 42, "locked/secret": base + 7}[e.Name]
		if e.Mode != wantMode || e.UID != wantUID || e.Name == "p" && e.GID != 0 || len(e.Xattrs) > 0 {
			t.Errorf("%s came back with mode %o, owner %d:%d, attributes %v", e.Name, e.Mode, e.UID, e.GID, e.Xattrs)
		}
	}
	if st, err := os.Lstat(filepath.Join(dir, "locked")); err != nil || st.Mode().Perm() != 0o111 {
		t.Errorf("reading left the directory with mode %v, %v", st.Mode(), err)
	}
}

func TestIDMaps(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	ids := []rootfs.IDMap{{0, 100000, 1000}, {1000, 5, 1}}
	opts := rootfs.TreeOptions{UIDs: ids, GIDs: ids}
	caps := "\x01\x00\x00\x02\x00\x04\x00\x00" + strings.Repeat("\x00", 12)
	blob := tarOf(t, dir("d"), tar.Header{
		Name: "f", Uid: 999, Gid: 1000, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": caps},
	})
	dir, manifest := unpacked(t, opts, blob)
	checkManifest(t, dir, manifest)
	want := map[string]string{"f": `file 0644 100999:5 security.capability="\x01\x00\x00\x03\x00\x04` + strings.Repeat(`\x00`, 14) + `\xa0\x86\x01\x00" 0 e3b0c442`, "d": "dir 0755 100000:100000"}
	got := listing(t, dir, view{})
	delete(got, ".")
	compare(t, got, want)
	changes := []rootfs.Change{{Name: "f", Kind: rootfs.Modified}}
	r := layer.NewReader(bytes.NewReader(emitted(t, dir, changes, rootfs.ChangeOptions{UIDs: ids, GIDs: ids})), layer.Limits{})
	e, err := r.Next()
	must(t, err)
	if e.UID != 999 || e.GID != 1000 || e.Xattrs["security.capability"] != caps {
		t.Errorf("the file came back as %d:%d's, with attributes %q", e.UID, e.GID, e.Xattrs)
	}
}

// aclFor is an access control list that names a user and a group.
func aclFor(user, group uint32) string {
	entry := func(tag, perm uint16, id uint32) []byte {
		b := binary.LittleEndian.AppendUint16(nil, tag)
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint16(b, perm), id)
	}
	const nobody = 1<<32 - 1
	return "\x02\x00\x00\x00" + string(slices.Concat(entry(1, 7, nobody), entry(2, 5, user), entry(4, 5, nobody),
		entry(8, 4, group), entry(0x10, 5, nobody), entry(0x20, 5, nobody)))
}

func TestMappedACLs(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	opts := rootfs.TreeOptions{
		UIDs: []rootfs.IDMap{{0, 100000, 1000}, {1000, 5, 1}},
		GIDs: []rootfs.IDMap{{0, 200000, 1000}, {1000, 6, 1}},
	}
	pax := func(access, byDefault string) map[string]string {
		return map[string]string{"SCHILY.xattr.system.posix_acl_access": access, "SCHILY.xattr.system.posix_acl_default": byDefault}
	}
	blob := tarOf(t, tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755, PAXRecords: pax(aclFor(7, 1000), aclFor(1000, 8))})
	dir, manifest := unpacked(t, opts, blob)
	checkManifest(t, dir, manifest)
	for attr, want := range map[string]string{"system.posix_acl_access": aclFor(100007, 6), "system.posix_acl_default": aclFor(5, 200008)} {
		got := make([]byte, 256)
		n, err := syscall.Getxattr(filepath.Join(dir, "d"), attr, got)
		if err != nil || string(got[:n]) != want {
			t.Errorf("%s is %q, %v, want %q", attr, got[:max(n, 0)], err, want)
		}
	}
	changes := []rootfs.Change{{Name: "d", Kind: rootfs.Modified}}
	r := layer.NewReader(bytes.NewReader(emitted(t, dir, changes, rootfs.ChangeOptions{UIDs: opts.UIDs, GIDs: opts.GIDs})), layer.Limits{})
	e, err := r.Next()
	must(t, err)
	if e.Xattrs["system.posix_acl_access"] != aclFor(7, 1000) || e.Xattrs["system.posix_acl_default"] != aclFor(1000, 8) {
		t.Errorf("the directory came back with %q", e.Xattrs)
	}

	blob = tarOf(t, tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755, PAXRecords: pax(aclFor(7, 1001), "")})
	_, err = rootfs.UnpackTree(t.Context(), filepath.Join(t.TempDir(), "tree"), blobsOf(blob), opts)
	if err == nil || !strings.Contains(err.Error(), "extended attribute system.posix_acl_access: group id 1001 is not mapped") {
		t.Errorf("with a group that is not mapped: %v", err)
	}
}

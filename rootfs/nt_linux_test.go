package rootfs_test

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/rootfs"
)

// ntOptions are those that work for whoever runs the test.
func ntOptions() rootfs.NTOptions {
	if os.Geteuid() == 0 {
		return rootfs.NTOptions{}
	}
	return rootfs.NTOptions{UserXattr: true, Owner: rootfs.IgnoreOwner}
}

func importNT(t testing.TB, dir string, parents []string, stream []byte) (rootfs.NTStats, error) {
	t.Helper()
	r := layer.ReadOptions{Encoding: layer.NT}.NewReader(bytes.NewReader(stream))
	return rootfs.ImportNT(t.Context(), dir, parents, r, ntOptions())
}

func readsNT(stream []byte) error {
	r := layer.ReadOptions{Encoding: layer.NT}.NewReader(bytes.NewReader(stream))
	for e, err := range r.All() {
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return errors.Join(err, errors.New(e.Name))
		}
	}
	_, err := r.Trailer()
	return err
}

// TestNTVectors imports what layers of Windows images look like, and of those that want to be one. What is read is stored,
// and written again with the same bytes; what is not leaves nothing. Neither touches what is beside the directory.
func TestNTVectors(t *testing.T) {
	t.Parallel()
	vectors, err := layertest.NTVectors()
	must(t, err)
	stored := 0
	for _, v := range vectors {
		t.Run(v.File+"/"+v.Name, func(t *testing.T) {
			top := t.TempDir()
			must(t, os.WriteFile(filepath.Join(top, "canary"), []byte("alive"), 0o600))
			dir := filepath.Join(top, "layer")
			_, err := importNT(t, dir, nil, v.Layers[0])
			want := []string{"canary"}
			if err == nil {
				stored++
				want = append(want, "layer")
				var out bytes.Buffer
				err := rootfs.WriteNT(t.Context(), dir, &out)
				must(t, err)
				if !bytes.Equal(out.Bytes(), v.Layers[0]) {
					t.Error("written again with different bytes")
				}
			}
			if readable := readsNT(v.Layers[0]); readable != nil && err == nil {
				t.Errorf("stored although it cannot be read: %v", readable)
			} else if readable == nil && err != nil && !strings.Contains(err.Error(), "find the hard link's target") {
				t.Errorf("not stored: %v", err)
			}
			if got := names(t, top); strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("left %q, want %q", got, want)
			}
			if b, err := os.ReadFile(filepath.Join(top, "canary")); err != nil || string(b) != "alive" {
				t.Errorf("the canary: %q, %v", b, err)
			}
		})
	}
	if stored < 20 {
		t.Errorf("only %d of %d vectors were stored", stored, len(vectors))
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func sddl(t testing.TB, text string) string {
	t.Helper()
	d, err := ntfs.ParseSDDL(text)
	must(t, err)
	b, err := d.Append(nil)
	must(t, err)
	return base64.StdEncoding.EncodeToString(b)
}

func nt(h tar.Header, records ...string) tar.Header {
	h.Format = tar.FormatPAX
	h.PAXRecords = map[string]string{"MSWINDOWS.fileattr": "32"}
	if h.Typeflag == tar.TypeDir {
		h.PAXRecords["MSWINDOWS.fileattr"] = "16"
	}
	for i := 0; i < len(records); i += 2 {
		h.PAXRecords[records[i]] = records[i+1]
	}
	return h
}

// TestNTLayers stores a layer on top of another one that it differs from in case, and whose files it links to.
func TestNTLayers(t *testing.T) {
	t.Parallel()
	long := "O:BAG:SYD:" + strings.Repeat("(A;OICI;FA;;;SY)", 100) // too long for an attribute
	base := tarOf(t, nt(dir("Files")), nt(dir("Files/Windows"), "MSWINDOWS.rawsd", sddl(t, "O:BAG:SYD:(A;;FA;;;BA)")),
		nt(file("Files/Windows/Old.txt", "old"), "MSWINDOWS.rawsd", sddl(t, long)), nt(file("Files/Windows/gone", "x")), nt(dir("Hives")))
	child := tarOf(t, nt(dir("Files")), nt(file("Files/WINDOWS/OLD.TXT", "new")), wh("Files/windows/gone"),
		nt(tar.Header{Name: "Files/link", Typeflag: tar.TypeLink, Linkname: "Files/WINDOWS/Old.TXT"}),
		nt(tar.Header{Name: "Files/Windows/sym", Typeflag: tar.TypeSymlink, Linkname: `C:\Windows\Old.txt`}),
		nt(tar.Header{Name: "Files/Linked", Typeflag: tar.TypeLink, Linkname: "Files/windows/old2"}), nt(dir("Hives")))
	top := t.TempDir()
	lower, upper := filepath.Join(top, "base"), filepath.Join(top, "child")
	_, err := importNT(t, lower, nil, base)
	must(t, err)
	if _, err := importNT(t, upper, []string{lower}, child); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a link to what no layer has: %v", err)
	}
	child = tarOf(t, nt(dir("Files")), nt(file("Files/WINDOWS/OLD.TXT", "new")), wh("Files/windows/gone"),
		nt(tar.Header{Name: "Files/link", Typeflag: tar.TypeLink, Linkname: "Files/WINDOWS/Old.TXT"}),
		nt(tar.Header{Name: "Files/Windows/sym", Typeflag: tar.TypeSymlink, Linkname: `C:\Windows\Old.txt`}), nt(dir("Hives")))
	_, err = importNT(t, upper, []string{lower}, child)
	must(t, err)
	for dir, stream := range map[string][]byte{lower: base, upper: child} {
		var out bytes.Buffer
		must(t, rootfs.WriteNT(t.Context(), dir, &out))
		if !bytes.Equal(out.Bytes(), stream) {
			t.Errorf("%s has different bytes", dir)
		}
	}
	if got := strings.Join(names(t, filepath.Join(upper, "Files/Windows")), " "); got != "Old.txt gone sym" {
		t.Errorf("the child's directory has %q", got)
	}
	if got, err := os.ReadFile(filepath.Join(upper, "Files/Windows/sym")); err != nil || string(got) != "new" {
		t.Errorf("the link leads to %q, %v", got, err)
	}
	checkEntry(t, []string{upper, lower}, "Files/windows", "O:BAG:SYD:(A;;FA;;;BA)") // implied: the base's
	checkEntry(t, []string{lower}, "Files/Windows/OLD.txt", long)
	if _, _, err := rootfs.OpenNT([]string{upper, lower}, "Files/Windows/GONE"); !errdefs.IsNotFound(err) {
		t.Errorf("a file that is removed: %v", err)
	}
	if _, err := importNT(t, upper, nil, child); !errdefs.IsAlreadyExists(err) {
		t.Errorf("stored twice: %v", err)
	}
}

func checkEntry(t *testing.T, dirs []string, name, want string) {
	t.Helper()
	e, content, err := rootfs.OpenNT(dirs, name)
	must(t, err)
	if content != nil {
		must(t, content.Close())
	}
	d, err := ntfs.ParseSecurityDescriptor(e.NT.SecurityDescriptor)
	must(t, err)
	if got, err := d.SDDL(); err != nil || got != want {
		t.Errorf("%s has %q, %v", name, got, err)
	}
}

// TestNTParentsLinks links to a parent's file and shares it.
func TestNTParentsLinks(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	lower, upper := filepath.Join(top, "base"), filepath.Join(top, "child")
	_, err := importNT(t, lower, nil, tarOf(t, nt(dir("Files")), nt(file("Files/a", "content")), nt(dir("Hives"))))
	must(t, err)
	child := tarOf(t, nt(dir("Files")), nt(tar.Header{Name: "Files/b", Typeflag: tar.TypeLink, Linkname: "Files/A"}), nt(dir("Hives")))
	_, err = importNT(t, upper, []string{lower}, child)
	must(t, err)
	var a, b syscall.Stat_t
	must(t, errors.Join(syscall.Stat(lower+"/Files/a", &a), syscall.Stat(upper+"/Files/b", &b)))
	if a.Ino != b.Ino {
		t.Error("the link is a file of its own")
	}
	var out bytes.Buffer
	must(t, rootfs.WriteNT(t.Context(), upper, &out))
	if !bytes.Equal(out.Bytes(), child) {
		t.Error("different bytes")
	}
}

// TestNTRepeated stores layers that bring names again and again, as files, directories and links, and in other cases. All of
// it is written again.
func TestNTRepeated(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 3))
		headers := []tar.Header{nt(dir("Files"))}
		kinds := map[string]byte{}
		for i := range 60 {
			name := []string{"Files/a", "Files/b", "Files/a/x", "Files/A", "Files/a/X", "Files/a/y", "Files/a/y/z"}[rng.IntN(7)]
			key := strings.ToUpper(name)
			if up := key[:strings.LastIndexByte(key, '/')]; up != "FILES" && kinds[up] != tar.TypeDir {
				continue
			}
			kinds[key] = []byte{tar.TypeReg, tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink}[rng.IntN(5)]
			if kinds[key] != tar.TypeDir {
				maps.DeleteFunc(kinds, func(k string, _ byte) bool { return strings.HasPrefix(k, key+"/") })
			}
			switch kinds[key] {
			case tar.TypeReg:
				headers = append(headers, nt(file(name, fmt.Sprintf("content %d", i))))
			case tar.TypeDir:
				headers = append(headers, nt(dir(name)))
			case tar.TypeSymlink:
				headers = append(headers, nt(tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: "x"}))
			case tar.TypeLink:
				headers = append(headers, nt(file("Files/target", strings.Repeat("t", i))), nt(tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: "Files/target"}))
			}
		}
		stream := tarOf(t, append(headers, nt(dir("Hives")))...)
		top := filepath.Join(t.TempDir(), "layer")
		if _, err := importNT(t, top, nil, stream); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		var out bytes.Buffer
		must(t, rootfs.WriteNT(t.Context(), top, &out))
		if !bytes.Equal(out.Bytes(), stream) {
			t.Errorf("seed %d: written again with different bytes", seed)
		}
	}
}

// TestNTLinkThroughLink: a hard link cannot get at a parent's directory by way of a link in it.
func TestNTLinkThroughLink(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	lower, upper := filepath.Join(top, "base"), filepath.Join(top, "child")
	_, err := importNT(t, lower, nil, tarOf(t, nt(dir("Files")), nt(file("Files/f", "x")),
		nt(tar.Header{Name: "Files/up", Typeflag: tar.TypeSymlink, Linkname: ".."}),
		nt(tar.Header{Name: "Files/self", Typeflag: tar.TypeSymlink, Linkname: `C:\`}), nt(dir("Hives"))))
	must(t, err)
	for _, target := range []string{"Files/up/layer.json", "Files/up/headers.s2", "Files/self/f", "Files/UP/Files/f"} {
		link := nt(tar.Header{Name: "Files/x", Typeflag: tar.TypeLink, Linkname: target})
		if _, err := importNT(t, upper, []string{lower}, tarOf(t, nt(dir("Files")), link, nt(dir("Hives")))); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", target, err)
		}
	}
}

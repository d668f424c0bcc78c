package layer_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/hostcompute/hcs/layer"
)

// plainTree is a tree that builders on Linux make Windows layers of.
func plainTree() []tar.Header {
	at := time.Unix(1_700_000_000, 42)
	return []tar.Header{
		{Name: "app", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: at},
		{Name: "app/a.txt", Typeflag: tar.TypeReg, Mode: 0o644, Size: 5, ModTime: at},
		{Name: "app/b.txt", Typeflag: tar.TypeLink, Linkname: "app/a.txt", ModTime: at},
		{Name: "app/rel", Typeflag: tar.TypeSymlink, Linkname: "a.txt", ModTime: at},
		{Name: "app/abs", Typeflag: tar.TypeSymlink, Linkname: "/app/a.txt", ModTime: at},
		{Name: "app/.wh.old", Typeflag: tar.TypeReg, ModTime: at},
	}
}

// buildKit does to a header what BuildKit's util/winlayers does, and Buildah's
// copy of it if that is what join is for.
func buildKit(h *tar.Header, join func(...string) string) {
	h.Name = "Files/" + h.Name
	if h.Linkname != "" {
		h.Linkname = join("Files/", h.Linkname)
	}
	h.Format, h.PAXRecords = tar.FormatPAX, map[string]string{
		"LIBARCHIVE.creationtime": fmt.Sprintf("%d.%d", h.ModTime.Unix(), h.ModTime.Nanosecond()),
	}
	switch h.Typeflag {
	case tar.TypeDir:
		h.Mode |= 1 << 14
		h.PAXRecords["MSWINDOWS.fileattr"], h.PAXRecords["MSWINDOWS.rawsd"] = "16", builderSD
	case tar.TypeReg:
		h.Mode |= 1 << 15
		h.PAXRecords["MSWINDOWS.fileattr"], h.PAXRecords["MSWINDOWS.rawsd"] = "32", fileSD
	}
}

// crane does what go-containerregistry does: a descriptor for everything, that
// of nobody in particular, and no prefix for links.
func crane(h *tar.Header) {
	h.Name = "Files/" + h.Name
	h.Format, h.PAXRecords = tar.FormatPAX, map[string]string{
		"MSWINDOWS.rawsd": "AQAAgBQAAAAkAAAAAAAAAAAAAAABAgAAAAAABSAAAAAhAgAAAQIAAAAAAAUgAAAAIQIAAA==",
	}
}

func concat(parts ...string) string { return parts[0] + parts[1] }

// TestNTBuilders reads what known builders make of a tree, and writes it as it
// should have been.
func TestNTBuilders(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		each func(*tar.Header)
		skip int // entries of the tree that are left out
		want map[layer.Problem]int
		abs  string
	}{
		"BuildKit": {
			func(h *tar.Header) { buildKit(h, concat) }, 0,
			map[layer.Problem]int{layer.CreationTime: 5, layer.SymlinkTarget: 2, layer.DefaultDescriptor: 1},
			`\app\a.txt`,
		},
		"Buildah": {
			func(h *tar.Header) { buildKit(h, path.Join) }, 0,
			map[layer.Problem]int{layer.CreationTime: 5, layer.SymlinkTarget: 2, layer.DefaultDescriptor: 1},
			`\app\a.txt`,
		},
		"crane": {crane, 1, map[layer.Problem]int{layer.MissingParent: 1, layer.HardLinkTarget: 1}, `/app/a.txt`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := buildLayer(t, plainTree()[c.skip:], c.each)
			got := map[layer.Problem]int{}
			files := readNT(t, in, func(w layer.Warning) { got[w.Problem]++ })
			if !maps.Equal(got, c.want) {
				t.Errorf("warnings %v, want %v", got, c.want)
			}
			checkBuilt(t, files, c.abs)
			if out := rewriteNT(t, in, unchanged); !bytes.Equal(in, out) {
				t.Error("written again with different bytes")
			}
			mended := rewriteNT(t, in, (*layer.Entry).Forget)
			for _, f := range readNT(t, mended, func(w layer.Warning) {
				if w.Problem != layer.DefaultDescriptor {
					t.Errorf("after mending: %s", w)
				}
			}) {
				if f.Implied {
					t.Errorf("%q is still implied", f.Name)
				}
			}
		})
	}
}

func buildLayer(t *testing.T, tree []tar.Header, each func(*tar.Header)) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range []string{"Hives", "Files"} {
		must(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeDir, PAXRecords: map[string]string{"MSWINDOWS.fileattr": "16"}}))
	}
	for _, h := range tree {
		each(&h)
		must(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, "hello"[:h.Size])
		must(t, err)
	}
	must(t, w.Close())
	return buf.Bytes()
}

// checkBuilt checks that nothing of the tree is lost.
func checkBuilt(t *testing.T, files []file, abs string) {
	t.Helper()
	var got []string
	at := time.Unix(1_700_000_000, 42)
	for _, f := range files {
		got = append(got, describeNT(f.Entry))
		if f.Kind == layer.Whiteout || f.Name == "Files" || f.Name == "Hives" {
			continue
		}
		if !f.ModTime.Equal(at) || !f.NT.CreationTime.Equal(at) || !f.AccessTime.Equal(at) || !f.ChangeTime.Equal(at) {
			t.Errorf("times of %q: %s %s %s %s", f.Name, f.ModTime, f.AccessTime, f.ChangeTime, f.NT.CreationTime)
		}
	}
	implied := ""
	if slices.Contains(got, `dir "Files/app" implied`) {
		implied = " implied"
	}
	want := []string{
		`dir "Hives"`, `dir "Files"`,
		`dir "Files/app"` + implied,
		`file "Files/app/a.txt"`,
		`hardlink "Files/app/b.txt" -> "Files/app/a.txt"`,
		`symlink "Files/app/rel" -> "a.txt"`,
		fmt.Sprintf(`symlink "Files/app/abs" -> %q`, abs),
		`whiteout "Files/app/old"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

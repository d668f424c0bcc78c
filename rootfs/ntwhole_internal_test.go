package rootfs

import (
	"slices"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/layer"
)

// FuzzExtents reads runs of a sparse file: what is read is written and read again the same.
func FuzzExtents(f *testing.F) {
	f.Add("0")
	f.Add("2,0+4096,65536+1")
	f.Add("1,-1+9223372036854775807")
	f.Fuzz(func(t *testing.T, text string) {
		data, err := parseExtents(text)
		if err != nil {
			if !errdefs.IsDataLoss(err) {
				t.Fatalf("%q: error of no class: %v", text, err)
			}
			return
		}
		for _, x := range data {
			if x.Offset < 0 || x.Length < 0 {
				t.Fatalf("%q has a run of %d at %d", text, x.Length, x.Offset)
			}
		}
		if again, err := parseExtents(formatExtents(data)); err != nil || !slices.Equal(again, data) {
			t.Fatalf("%q became %v, %v", text, again, err)
		}
	})
}

// FuzzTombstones reads tombstones.txt: names below Files, each once, or an error that names the line.
func FuzzTombstones(f *testing.F) {
	f.Add([]byte("\ufeffVersion 1.0\n\\a\\b\n\\A\\c\n"))
	f.Add([]byte("\ufeffVersion 1.0\r\n\\a\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		stones, err := parseTombstones(b)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Fatalf("error of no class: %v", err)
			}
			return
		}
		for _, dir := range stones.dirs {
			for _, e := range stones.take(dir) {
				if err := layer.CheckNT(e); err != nil || e.Kind != layer.Whiteout {
					t.Fatalf("%v %q: %v", e.Kind, e.Name, err)
				}
			}
		}
		if len(stones.byDir) > 0 {
			t.Fatalf("left: %v", stones.byDir)
		}
	})
}

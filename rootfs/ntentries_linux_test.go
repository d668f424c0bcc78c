package rootfs_test

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/rootfs"
)

// TestImportEntries stores a layer entry by entry and reads the same entries, those included that a tar stream cannot tell.
func TestImportEntries(t *testing.T) {
	t.Parallel()
	whole := ntEntry(layer.File, "Files/whole", ntfs.AttrArchive|ntfs.AttrReparse|ntfs.AttrSparse)
	whole.Size, whole.Data = 1<<20, []layer.Extent{{Offset: 65536, Length: 4}}
	whole.NT.EA = []ntfs.EA{{Name: "A", Flags: 0x80, Value: []byte("v")}}
	whole.NT.ObjectID, whole.NT.ShortName = bytes.Repeat([]byte{9}, 64), "WHOLE~1"
	whole.NT.Kept = []ntfs.KeptStream{{ID: ntfs.StreamTransaction, Data: bytes.Repeat([]byte("t"), 4000)}}
	wci, err := ntfs.WCI{Version: 1, Path: "x"}.Reparse(ntfs.TagWCI1)
	must(t, err)
	whole.NT.Reparse, err = wci.Append(nil)
	must(t, err)
	content := strings.Repeat("\x00", 65536) + "data" + strings.Repeat("\x00", 1<<20-65536-4)
	stream := ntEntry(layer.Stream, "Files/whole", 0)
	stream.NT, stream.Stream, stream.Size, stream.Data = new(ntfs.Meta), "s", 10, []layer.Extent{{Offset: 4, Length: 1}}
	want := append(smallLayer(), ntObject{whole, content}, ntObject{stream, "\x00\x00\x00\x00s\x00\x00\x00\x00\x00"})
	want[1].Entry.ModTime = time.Unix(0, 0) // a whiteout has none, which is this in a tar stream
	dir := filepath.Join(t.TempDir(), "layer")
	_, err = rootfs.ImportEntries(t.Context(), dir, nil, sourceOf(want), ntOptions())
	must(t, err)
	var got []ntObject
	must(t, rootfs.ExportNT(t.Context(), dir, collectTo(&got)))
	if diff := cmp.Diff(want, got, entryEqual); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := rootfs.WriteNT(t.Context(), dir, io.Discard); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "Files/whole") {
		t.Errorf("a tar stream of what it has no form for: %v", err)
	}
}

// TestImportEntriesFails ends imports in the middle: nothing stays.
func TestImportEntriesFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	own := ntEntry(layer.File, "Files/x", 0)
	own.Records = map[string]string{"HCS.meta": "x"}
	short := ntEntry(layer.File, "Files/x", 0)
	short.Size = 100_000
	for name, c := range map[string]struct {
		source rootfs.EntrySource
		is     func(error) bool
	}{
		"the source": {func(emit rootfs.Emit) error { return errors.Join(sourceOf(smallLayer())(emit), broken) }, func(err error) bool { return errors.Is(err, broken) }},
		"own record": {sourceOf(append(smallLayer(), ntObject{own, ""})), errdefs.IsInvalidArgument},
		"content":    {sourceOf(append(smallLayer(), ntObject{short, "short"})), errdefs.IsDataLoss},
		"a name":     {sourceOf(append(smallLayer(), ntObject{ntEntry(layer.File, "Files/../x", 0), ""})), errdefs.IsInvalidArgument},
	} {
		top := t.TempDir()
		_, err := rootfs.ImportEntries(t.Context(), filepath.Join(top, "layer"), nil, c.source, ntOptions())
		if !c.is(err) {
			t.Errorf("%s: %v", name, err)
		}
		if left := names(t, top); len(left) > 0 {
			t.Errorf("%s left %q", name, left)
		}
	}
}

// TestOwnRecordsOfOthers stores a tar stream with records that are called as those of layers which did not come as one: they
// mean nothing, and stay.
func TestOwnRecordsOfOthers(t *testing.T) {
	t.Parallel()
	stream := tarOf(t, nt(dir("Files")), nt(file("Files/x", "content"), "HCS.meta", "AQAAAA==", "HCS.sparse", "1,0+5"), nt(dir("Hives")))
	top := filepath.Join(t.TempDir(), "layer")
	_, err := importNT(t, top, nil, stream)
	must(t, err)
	var out bytes.Buffer
	must(t, rootfs.WriteNT(t.Context(), top, &out))
	if !bytes.Equal(out.Bytes(), stream) {
		t.Error("written again with different bytes")
	}
}

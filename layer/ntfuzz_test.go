package layer_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

func FuzzNTReader(f *testing.F) {
	vectors, err := layertest.NTVectors()
	if err != nil {
		f.Fatal(err)
	}
	for _, v := range vectors {
		f.Add(v.Layers[0])
	}
	f.Add(export(f, diffLayer, ""))
	f.Add(export(f, baseLayer[:9], ":$DATA"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var same bytes.Buffer
		var files []file
		opts := layer.ReadOptions{Limits: fuzzLimits, Encoding: layer.NT}
		r := opts.NewReader(bytes.NewReader(in))
		w := layer.NewWriter(&same)
		for e, err := range r.All() {
			if err != nil {
				checkClass(t, err)
				return
			}
			checkNTInvariant(t, e)
			content, err := io.ReadAll(r)
			if err != nil {
				checkClass(t, err)
				return
			}
			if int64(len(content)) != e.Size {
				t.Fatalf("%q: %d bytes of content, size %d", e.Name, len(content), e.Size)
			}
			must(t, w.Write(e, bytes.NewReader(content)))
			files = append(files, file{e, content})
		}
		checkSame(t, in, r, w, &same)
		checkHollow(t, in, opts)
		checkLent(t, in, same.Bytes(), opts)
		checkNTAnew(t, files)
	})
}

func checkNTInvariant(t *testing.T, e *layer.Entry) {
	t.Helper()
	checkInvariant(t, &layer.Entry{Name: e.Name, Kind: min(e.Kind, layer.Opaque), Link: e.Link, Mode: e.Mode, UID: e.UID, GID: e.GID})
	for part := range strings.SplitSeq(e.Name, "/") {
		if strings.ContainsAny(part, `:\?*"<>|`+"\x01\n\x1f") || strings.HasSuffix(part, ".") || strings.EqualFold(part, "nul") {
			t.Fatalf("name %q", e.Name)
		}
	}
	part, _ := layer.SplitPart(e.Name)
	if part != layer.FilesPart && part != layer.HivesPart && part != layer.UtilityVMPart {
		t.Fatalf("name %q", e.Name)
	}
	if e.NT == nil || (e.Stream != "") != (e.Kind == layer.Stream) || strings.ContainsAny(e.Stream, ":/\\\x00") {
		t.Fatalf("entry %+v", e)
	}
	if e.Kind != layer.Whiteout && e.Kind != layer.Opaque && (e.AccessTime.Year() < 1601 || e.ChangeTime.Year() < 1601 || e.ModTime.Year() < 1601) {
		t.Fatalf("times of %+v", e)
	}
}

// checkNTAnew encodes entries anew and compares; holes are written out. What
// was mended needs no mending any more.
func checkNTAnew(t *testing.T, files []file) {
	t.Helper()
	var anew bytes.Buffer
	w := layer.NewWriter(&anew)
	for _, f := range files {
		f.Forget()
		err := w.Write(f.Entry, bytes.NewReader(f.Content))
		if errors.Is(err, errdefs.ErrResourceExhausted) {
			return // what is terse in other forms is too long in ours
		}
		must(t, err)
		f.Data, f.Implied = nil, false
		slices.SortFunc(f.NT.EA, func(a, b ntfs.EA) int { return strings.Compare(a.Name, b.Name) }) // as records are
	}
	must(t, w.Close())
	again := readNT(t, anew.Bytes(), func(w layer.Warning) {
		switch w.Problem {
		case layer.MissingParent, layer.MissingHives, layer.HardLinkTarget, layer.SymlinkTarget, layer.CreationTime, layer.TimeRange,
			layer.Attributes, layer.StreamRecords, layer.NameForm:
			t.Fatalf("encoded anew: %s", w)
		}
	})
	if diff := cmp.Diff(files, again, sameFiles); diff != "" {
		t.Fatalf("encoded anew (-was +is):\n%s", diff)
	}
}

// checkLent checks that entries whose headers are lent are written like others
// as long as they are, and afterwards like those that come from no stream.
func checkLent(t *testing.T, in, want []byte, opts layer.ReadOptions) {
	t.Helper()
	var same bytes.Buffer
	var late []*layer.Entry
	r := opts.NewReader(bytes.NewReader(in))
	r.Lend()
	w := layer.NewWriter(&same)
	for e, err := range r.All() {
		must(t, err)
		must(t, w.Write(e, r))
		if e.Kind != layer.Stream {
			late = append(late, e)
		}
	}
	trailer, err := r.Trailer()
	must(t, err)
	must(t, w.CloseWith(trailer))
	if !bytes.Equal(same.Bytes(), want) {
		t.Fatal("entries that are written at once differ from the stream")
	}
	for _, e := range late {
		anew := *e
		anew.Forget()
		if e.Implied {
			continue // written only where it comes from no stream
		}
		if got, want := headers(e), headers(&anew); !bytes.Equal(got, want) {
			t.Fatalf("%q: its headers are %q, anew %q", e.Name, got, want)
		}
	}
}

// headers returns what is written of an entry alone, nothing if it cannot be.
func headers(e *layer.Entry) []byte {
	var b bytes.Buffer
	w := layer.NewWriter(&b)
	if err := w.WriteHeader(e); err != nil || w.Close() != nil {
		return nil
	}
	return b.Bytes()
}

package layer_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/layer"
)

// fuzzLimits keep an input from costing more than a fuzzer can wait for.
var fuzzLimits = layer.Limits{Bytes: 1 << 20, Entries: 1000, Window: 1 << 20}

func FuzzReader(f *testing.F) {
	vectors, err := layertest.Vectors()
	if err != nil {
		f.Fatal(err)
	}
	for _, v := range vectors {
		for _, l := range v.Layers {
			f.Add(l)
		}
	}
	for _, format := range []tar.Format{tar.FormatPAX, tar.FormatGNU, tar.FormatUSTAR} {
		f.Add(archiveTar(f, format))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		checkLentPOSIX(t, in, fuzzLimits)
		var same bytes.Buffer
		var files []file
		r := layer.NewReader(bytes.NewReader(in), fuzzLimits)
		w := layer.NewWriter(&same)
		for e, err := range r.All() {
			if err != nil {
				checkClass(t, err)
				return
			}
			checkInvariant(t, e)
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
		checkAnew(t, files)
	})
}

// checkLentPOSIX checks that a reader that lends headers reads what others
// read.
func checkLentPOSIX(t *testing.T, in []byte, limits layer.Limits) {
	t.Helper()
	read := func(r *layer.Reader) (files []file, failed error) {
		for e, err := range r.All() {
			if err != nil {
				return files, err
			}
			content, err := io.ReadAll(r)
			e.Forget()
			if files = append(files, file{e, content}); err != nil {
				return files, err
			}
		}
		return files, nil
	}
	want, wantErr := read(layer.NewReader(bytes.NewReader(in), limits))
	lending := layer.NewReader(bytes.NewReader(in), limits)
	lending.Lend()
	got, err := read(lending)
	if fmt.Sprint(err) != fmt.Sprint(wantErr) || !reflect.DeepEqual(got, want) {
		t.Fatalf("lent %d entries, %v, else %d, %v", len(got), err, len(want), wantErr)
	}
}

// checkClass checks that an error of a layer has one of the promised classes.
func checkClass(t *testing.T, err error) {
	t.Helper()
	for _, class := range outcomes {
		if class != nil && errors.Is(err, class) {
			return
		}
	}
	t.Fatalf("error without a class: %v", err)
}

func checkInvariant(t *testing.T, e *layer.Entry) {
	t.Helper()
	names := []string{e.Name}
	if e.Kind == layer.Hardlink {
		names = append(names, e.Link)
	}
	for _, name := range names {
		if strings.Contains(name, "\x00") || len(name) > 4096 {
			t.Fatalf("name %q", name)
		}
		for part := range strings.SplitSeq(name, "/") {
			root := name == "." && (e.Kind == layer.Dir || e.Kind == layer.Opaque)
			if part == "" || part == ".." || part == "." && !root || strings.HasPrefix(part, ".wh.") {
				t.Fatalf("%s with name %q", e.Kind, name)
			}
		}
	}
	if e.Kind > layer.Opaque || e.Mode > 0o7777 || e.UID == 1<<32-1 || e.GID == 1<<32-1 || e.Size != 0 && e.Kind != layer.File {
		t.Fatalf("entry %+v", e)
	}
	end := int64(0)
	for _, x := range e.Data {
		if x.Offset < end || x.Length <= 0 || x.Offset+x.Length > e.Size {
			t.Fatalf("sparse map %v of %d bytes", e.Data, e.Size)
		}
		end = x.Offset + x.Length
	}
}

func checkSame(t *testing.T, in []byte, r *layer.Reader, w *layer.Writer, out *bytes.Buffer) {
	t.Helper()
	trailer, err := r.Trailer()
	must(t, err)
	must(t, w.CloseWith(trailer))
	if !bytes.Equal(in, out.Bytes()) {
		t.Fatalf("written again: %d bytes, which differ from the %d read at %d", out.Len(), len(in), firstDifference(in, out.Bytes()))
	}
}

// checkAnew encodes entries anew and compares. The map of a sparse file may
// become coarser.
func checkAnew(t *testing.T, files []file) {
	t.Helper()
	var anew bytes.Buffer
	w := layer.NewWriter(&anew)
	for _, f := range files {
		err := w.Write(fresh(f.Entry), bytes.NewReader(f.Content))
		if errors.Is(err, errdefs.ErrResourceExhausted) {
			return // what is terse in other formats is too long in ours
		}
		must(t, err)
	}
	must(t, w.Close())
	again := readAll(t, anew.Bytes())
	for _, fs := range [][]file{files, again} {
		for _, f := range fs {
			if f.Data != nil {
				f.Data = []layer.Extent{}
			}
		}
	}
	if diff := cmp.Diff(files, again, sameFiles); diff != "" {
		t.Fatalf("encoded anew (-was +is):\n%s", diff)
	}
}

func FuzzDecompress(f *testing.F) {
	for _, c := range compressions {
		z := compress(f, []byte("hello"), c, 5)
		f.Add(z)
		f.Add(join(z, z))
		f.Add(join(z, make([]byte, 9)))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, c, err := layer.Decompress(bytes.NewReader(in), fuzzLimits)
		if err != nil {
			if !errors.Is(err, errdefs.ErrNotImplemented) {
				checkClass(t, err)
			}
			return
		}
		defer r.Close()
		var out bytes.Buffer
		_, err = io.Copy(&out, io.LimitReader(r, 1<<20))
		if err != nil {
			checkClass(t, err)
			return
		}
		if c == layer.None && !bytes.Equal(in, out.Bytes()) {
			t.Fatal("plain bytes are not what they were")
		}
	})
}

package layer

import (
	"archive/tar"
	"bytes"
	"maps"
	"testing"
	"time"
)

// plainSeeds are headers as archive/tar writes them, of which the fuzzer makes
// others.
func plainSeeds(t testing.TB) (seeds [][]byte) {
	for _, h := range []tar.Header{
		{Name: "f", Typeflag: tar.TypeReg, Size: 10, Mode: 0o644},
		{Name: "Files/Windows", Typeflag: tar.TypeDir, PAXRecords: map[string]string{"MSWINDOWS.fileattr": "16", "A": "b"}},
		{Name: "ü", Typeflag: tar.TypeSymlink, Linkname: "ö", Format: tar.FormatPAX, ModTime: time.Unix(-5, 100)},
		{Name: "h", Typeflag: tar.TypeLink, Linkname: "x", Format: tar.FormatPAX, AccessTime: time.Unix(1, 5), ChangeTime: time.Unix(1<<40, 1)},
		{Name: "dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/dir/file", Typeflag: tar.TypeReg},
		{Name: "big", Typeflag: tar.TypeReg, Size: 1 << 40, Format: tar.FormatPAX},
	} {
		var buf bytes.Buffer
		if err := tar.NewWriter(&buf).WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, buf.Bytes())
	}
	return seeds
}

// FuzzPlain compares what parsePlain reads with what archive/tar reads, which
// has the last word.
func FuzzPlain(f *testing.F) {
	for _, s := range plainSeeds(f) {
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, in []byte, mend bool) {
		if mend {
			in = checksummed(in)
		}
		var got tar.Header
		n, records := parsePlain(in, &got, nil)
		if n == 0 {
			return
		}
		want, err := tar.NewReader(bytes.NewReader(in[:n])).Next()
		if err != nil {
			t.Fatalf("archive/tar: %v; parsePlain: %+v", err, got)
		}
		if got.Name != want.Name || got.Linkname != want.Linkname || got.Typeflag != want.Typeflag || got.Size != want.Size ||
			got.Mode != want.Mode || got.Uid != want.Uid || got.Gid != want.Gid || !got.ModTime.Equal(want.ModTime) ||
			!got.AccessTime.Equal(want.AccessTime) || !got.ChangeTime.Equal(want.ChangeTime) {
			t.Fatalf("parsePlain:\n%+v\narchive/tar:\n%+v", got, *want)
		}
		if len(records) != len(want.PAXRecords) || !maps.Equal(recordMap(records), want.PAXRecords) {
			t.Fatalf("records %q, by archive/tar %q", records, want.PAXRecords)
		}
	})
}

// checksummed sets the checksums of a header and the one after its records.
func checksummed(in []byte) []byte {
	in = bytes.Clone(in)
	for at := 0; at+blockSize <= len(in); {
		var h header
		copy(h.block[:], in[at:])
		h.finish()
		copy(in[at:], h.block[:])
		size, ok := parseNumber(in[at+124 : at+136])
		if in[at+156] != tar.TypeXHeader || !ok || size > int64(len(in)) {
			break
		}
		at += blockSize + int(size+padding(size))
	}
	return in
}

// TestPlain checks that what Windows' exporter writes goes the short way.
func TestPlain(t *testing.T) {
	t.Parallel()
	for i, s := range plainSeeds(t) {
		var h tar.Header
		if n, _ := parsePlain(s, &h, nil); n != len(s) {
			t.Errorf("header %d: %d bytes of %d are plain", i, n, len(s))
		}
		for cut := range len(s) {
			if n, _ := parsePlain(s[:cut], &h, nil); n != 0 {
				t.Errorf("header %d: %d bytes of it are plain when there are %d", i, n, cut)
			}
		}
	}
}

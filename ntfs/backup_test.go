package ntfs_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/ntfs"
)

func TestMetaRoundTrip(t *testing.T) {
	t.Parallel()
	m := ntfs.Meta{
		SecurityDescriptor: []byte("descriptor"), Reparse: []byte("reparse"), ObjectID: make([]byte, 64),
		EA:   []ntfs.EA{{Name: "B", Value: []byte("x")}, {Name: "A", Flags: 0x80, Value: []byte("four")}},
		Kept: []ntfs.KeptStream{{ID: ntfs.StreamLink, Name: "l", Data: []byte("d")}, {ID: ntfs.StreamTransaction, Attributes: 2, Data: []byte("t")}},
	}
	var b bytes.Buffer
	w := ntfs.NewBackupWriter(&b)
	if err := w.WriteMeta(&m); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteStream(ntfs.StreamData, []byte("content")); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteHeader(ntfs.AlternateHeader("ads", 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("no")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var got ntfs.Meta
	var contents []string
	r := ntfs.NewBackupReader(&b)
	for h, err := range r.Streams() {
		if err != nil {
			t.Fatal(err)
		}
		if taken, err := got.Take(r); err != nil || taken {
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		content, err := io.ReadAll(r.Expand())
		if err != nil {
			t.Fatal(err)
		}
		contents = append(contents, h.ID.String(), h.StreamName(), string(content))
	}
	if !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v, want %+v", got, m)
	}
	if want := []string{"data", "", "content", "alternate data", "ads", "no"}; !reflect.DeepEqual(contents, want) {
		t.Errorf("got %q, want %q", contents, want)
	}
}

func TestSparse(t *testing.T) {
	t.Parallel()
	const want = "\x00\x00ab\x00cdef\x00\x00"
	extents := []ntfs.Extent{{Offset: 2, Length: 2}, {Offset: 5, Length: 4}}
	var b bytes.Buffer
	w := ntfs.NewBackupWriter(&b)
	if err := w.WriteSparse(&ntfs.BackupHeader{ID: ntfs.StreamData}, int64(len(want)), extents, strings.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteStream(ntfs.StreamSecurity, []byte("sd")); err != nil {
		t.Fatal(err)
	}
	const terminator = "0900000008000000080000000000000000000000" + "0b00000000000000"
	if got := hex.EncodeToString(b.Bytes()); !strings.Contains(got, terminator) {
		t.Errorf("no block that ends the stream in %s", got)
	}
	for _, source := range []io.Reader{bytes.NewReader(b.Bytes()), bytes.NewBuffer(b.Bytes())} {
		r := ntfs.NewBackupReader(source)
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		size, data, err := r.Map()
		if err != nil || size != int64(len(want)) || !reflect.DeepEqual(data, extents) {
			t.Errorf("got %d %v, %v", size, data, err)
		}
		if h, err := r.Next(); err != nil || h.ID != ntfs.StreamSecurity {
			t.Errorf("got %v, %v after the map", h, err)
		}
	}
	r := ntfs.NewBackupReader(&b)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r.Expand()); err != nil || string(got) != want {
		t.Errorf("got %q, %v", got, err)
	}
	if h, err := r.Next(); err != nil || h.ID != ntfs.StreamSecurity {
		t.Errorf("got %v, %v after the expansion", h, err)
	}
}

// A gigantic is a seekable stream of zeros after some bytes.
type gigantic struct {
	start    []byte
	at, size int64
}

func (g *gigantic) Read(p []byte) (int, error) {
	if g.at >= g.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), g.size-g.at))
	clear(p[:n])
	if g.at < int64(len(g.start)) {
		copy(p[:n], g.start[g.at:])
	}
	g.at += int64(n)
	return n, nil
}

func (g *gigantic) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent {
		return 0, errors.ErrUnsupported
	}
	g.at += offset
	return g.at, nil
}

func TestBeyond4GiB(t *testing.T) {
	t.Parallel()
	const size = 5 << 30
	header, _ := hex.DecodeString("0100000000000000000000400100000000000000")
	r := ntfs.NewBackupReader(&gigantic{start: header, size: 20 + size})
	h, err := r.Next()
	if err != nil || h.Size != size {
		t.Fatal(h, err)
	}
	if _, err := r.Next(); err != io.EOF || r.Offset() != 20+size {
		t.Errorf("got %v at %d", err, r.Offset())
	}
	r = ntfs.NewBackupReader(&gigantic{start: header, size: 19 + size})
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) || !errors.Is(err, ntfs.ErrFormat) {
		t.Errorf("a byte too short: %v", err)
	}
}

func TestBadBackupStreams(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, hex, want string }{
		{"short header", "0100", "header at offset 0"},
		{"cut content", "0100000000000000" + "0400000000000000" + "00000000" + "61", "data at offset 21"},
		{"negative size", "0100000000000000" + "ffffffffffffffff" + "00000000", "a size of"},
		{"odd name", "0400000000000000" + "0000000000000000" + "01000000" + "61", "a name of 1"},
		{"long name", "0400000000000000" + "0000000000000000" + "ffffffff", "a name of"},
		{"cut name", "0400000000000000" + "0000000000000000" + "04000000" + "6100", "in a header"},
		{"block without offset", "0900000000000000" + "0700000000000000" + "00000000", "no offset"},
		{"block backwards", "0100000008000000" + "0400000000000000" + "00000000" + "61616161" + "0900000008000000" + "0900000000000000" + "00000000" + "0300000000000000" + "61", "follows data up to 4"},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		r := ntfs.NewBackupReader(bytes.NewBuffer(b))
		for err == nil {
			if _, err = r.Next(); err == nil {
				_, err = io.Copy(io.Discard, r.Expand())
			}
		}
		if !errors.Is(err, ntfs.ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestBadWrites(t *testing.T) {
	t.Parallel()
	w := ntfs.NewBackupWriter(io.Discard)
	if err := w.WriteHeader(&ntfs.BackupHeader{ID: ntfs.StreamData, Size: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("abc")); !errors.Is(err, ntfs.ErrRange) {
		t.Error(err)
	}
	w = ntfs.NewBackupWriter(io.Discard)
	if err := w.WriteHeader(&ntfs.BackupHeader{ID: ntfs.StreamData, Size: 2}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

func FuzzBackup(f *testing.F) {
	var b bytes.Buffer
	w := ntfs.NewBackupWriter(&b)
	content := strings.NewReader("content")
	if err := errors.Join(w.WriteStream(ntfs.StreamSecurity, []byte("sd")), w.WriteHeader(ntfs.AlternateHeader("a", 0)),
		w.WriteSparse(&ntfs.BackupHeader{ID: ntfs.StreamData}, 10, []ntfs.Extent{{Offset: 1, Length: 2}}, content)); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r := ntfs.NewBackupReader(bytes.NewBuffer(b))
		var out bytes.Buffer
		w := ntfs.NewBackupWriter(&out)
		for h, err := range r.Streams() {
			if err != nil {
				return
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(w, r); err != nil {
				return
			}
		}
		if err := w.Close(); err != nil || !bytes.Equal(out.Bytes(), b) {
			t.Fatalf("%x became %x, %v", b, out.Bytes(), err)
		}
		var m ntfs.Meta
		r = ntfs.NewBackupReader(bytes.NewBuffer(b))
		for _, err := range r.Streams() {
			if err != nil {
				t.Fatal(err)
			}
			if taken, err := m.Take(r); taken || err != nil {
				continue
			}
			if _, _, err := r.Map(); err != nil {
				return
			}
		}
	})
}

func BenchmarkBackup(b *testing.B) {
	var stream bytes.Buffer
	w := ntfs.NewBackupWriter(&stream)
	if err := errors.Join(w.WriteStream(ntfs.StreamSecurity, make([]byte, 216)), w.WriteStream(ntfs.StreamData, make([]byte, 100))); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var m ntfs.Meta
		r := ntfs.NewBackupReader(bytes.NewReader(stream.Bytes()))
		for _, err := range r.Streams() {
			if err != nil {
				b.Fatal(err)
			}
			if _, err := m.Take(r); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// TestMapWithoutEnd maps a sparse stream without its last block, which some writers leave out: the stream after it is whole.
func TestMapWithoutEnd(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := ntfs.NewBackupWriter(&b)
	for _, h := range []*ntfs.BackupHeader{
		{ID: ntfs.StreamData, Attributes: ntfs.StreamSparse},
		{ID: ntfs.StreamSparseBlock, Offset: 5, Size: 1},
		{ID: ntfs.StreamData, Attributes: ntfs.StreamSparse},
		ntfs.AlternateHeader("a", 3),
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("abc")[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	r := ntfs.NewBackupReader(bytes.NewReader(b.Bytes()))
	for i, want := range []int64{6, 0, 3} {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if size, _, err := r.Map(); err != nil || size != want {
			t.Errorf("stream %d has %d bytes, %v, want %d", i, size, err, want)
		}
	}
}

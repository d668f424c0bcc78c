package transfer_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/transfer"
	"github.com/hostcompute/hcs/compat/hcsshim/winio"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

type object struct {
	Entry   *layer.Entry
	Content string
}

func sourceOf(objects []object) transfer.Source {
	return func(emit transfer.Emit) error {
		for _, o := range objects {
			if err := emit(o.Entry, strings.NewReader(o.Content)); err != nil {
				return err
			}
		}
		return nil
	}
}

// collect returns a Writer and what it emits.
func collect(t *testing.T) (*transfer.Writer, *[]object) {
	t.Helper()
	var got []object
	return transfer.NewWriter(func(e *layer.Entry, content io.Reader) error {
		o := object{Entry: e}
		if content != nil {
			b, err := io.ReadAll(content)
			if err != nil {
				return err
			}
			o.Content = string(b)
		}
		got = append(got, o)
		return nil
	}, t.TempDir()), &got
}

// pump copies a layer as clients do, in reads of a given size.
func pump(r *transfer.Reader, w *transfer.Writer, size int) error {
	buf := make([]byte, size)
	for {
		name, _, info, err := r.Next()
		if errors.Is(err, io.EOF) {
			return errors.Join(r.Close(), w.Close())
		}
		if err != nil {
			return err
		}
		if info == nil {
			if err := w.Remove(name); err != nil {
				return err
			}
			continue
		}
		if err := w.Add(name, info); err != nil {
			return err
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf); err != nil {
			return err
		}
	}
}

var descriptors = []string{"", "O:BAG:SYD:(A;OICI;FA;;;BA)", "O:BUG:BU"}

// random makes a layer with every kind of thing that a backup stream tells of.
func random(t *testing.T, rng *rand.Rand, n int) []object {
	t.Helper()
	at := time.Date(2021, 3, 4, 5, 6, 7, 800, time.UTC)
	entry := func(kind layer.Kind, name string) *layer.Entry {
		e := &layer.Entry{Kind: kind, Name: name, NT: &ntfs.Meta{}, ModTime: at}
		if kind != layer.Whiteout {
			e.AccessTime, e.ChangeTime = at.Add(time.Hour), at.Add(2*time.Hour)
		}
		if kind != layer.Whiteout && kind != layer.Stream {
			e.NT.CreationTime = at.Add(-time.Duration(rng.IntN(1000)) * time.Millisecond)
			e.NT.Attributes = ntfs.AttrArchive
		}
		return e
	}
	all := []object{}
	add := func(e *layer.Entry, content string) {
		e.Size = int64(len(content))
		if e.Kind == layer.Whiteout {
			e.ModTime = time.Time{}
		}
		all = append(all, object{e, content})
	}
	dir := entry(layer.Dir, "Files")
	dir.NT.Attributes = ntfs.AttrDirectory
	add(dir, "")
	for i := range n {
		name := fmt.Sprintf("Files/%d \U0001F4C4", i)
		switch rng.IntN(5) {
		case 0:
			add(entry(layer.Whiteout, name), "")
			continue
		case 1:
			e := entry(layer.Symlink, name)
			link := ntfs.NewLink(ntfs.TagSymlink, `..\x y`)
			buf, err := link.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			e.NT.Attributes, e.NT.Reparse, e.Link = ntfs.AttrReparse, buf, `..\x y`
			add(e, "")
			continue
		case 2:
			content := make([]byte, 300_000)
			content[100_000] = 'x'
			e := entry(layer.File, name)
			e.NT.Attributes |= ntfs.AttrSparse
			e.Data = []layer.Extent{{Offset: 65536, Length: 65536}}
			add(e, string(content))
			continue
		}
		e := entry(layer.File, name)
		if s := descriptors[rng.IntN(len(descriptors))]; s != "" {
			sd, err := ntfs.ParseSDDL(s)
			if err != nil {
				t.Fatal(err)
			}
			if e.NT.SecurityDescriptor, err = sd.Append(nil); err != nil {
				t.Fatal(err)
			}
		}
		if rng.IntN(3) == 0 {
			e.NT.EA = []ntfs.EA{{Name: "B", Value: []byte("2")}, {Name: "A", Value: []byte("1")}}
			e.NT.ObjectID = bytes.Repeat([]byte{byte(i)}, 64)
		}
		size := rng.IntN(3) * rng.IntN(10_000)
		if rng.IntN(20) == 0 {
			size = 5<<20 + rng.IntN(1000) // more than is kept in memory
		}
		add(e, strings.Repeat("y", size))
		for s := range rng.IntN(3) {
			se := entry(layer.Stream, name)
			se.Stream = fmt.Sprintf("stream %d", s)
			add(se, strings.Repeat("s", rng.IntN(1000)))
		}
	}
	return all
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		want := random(t, rng, 60)
		w, got := collect(t)
		if err := pump(transfer.NewReader(sourceOf(want), nil), w, 1+rng.IntN(70_000)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, *got, cmpopts.IgnoreUnexported(layer.Entry{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("seed %d: -want +got:\n%s", seed, diff)
		}
	}
}

// TestUnread skips files, whose streams then must not turn up as files.
func TestUnread(t *testing.T) {
	t.Parallel()
	objects := random(t, rand.New(rand.NewPCG(7, 7)), 40)
	var want, got []string
	for _, o := range objects {
		if o.Entry.Kind != layer.Stream {
			want = append(want, strings.ReplaceAll(o.Entry.Name, "/", `\`))
		}
	}
	r := transfer.NewReader(sourceOf(objects), nil)
	for i := 0; ; i++ {
		name, _, _, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, name)
		if i%2 == 0 {
			if _, err := r.Read(make([]byte, 10)); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, _, _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, _, _, err := r.Next(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a closed reader says %v", err)
	}
}

func TestReaderFailure(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	r := transfer.NewReader(func(emit transfer.Emit) error {
		e := &layer.Entry{Kind: layer.File, Name: "Files/x", Size: 10, NT: &ntfs.Meta{}}
		return errors.Join(emit(e, strings.NewReader("short")), broken)
	}, nil)
	if _, size, _, err := r.Next(); err != nil || size != 10 {
		t.Fatalf("got size %d, %v", size, err)
	}
	if _, err := io.ReadAll(r); !errdefs.IsDataLoss(err) {
		t.Errorf("content that is too short: %v", err)
	}
	for range 2 {
		if _, _, _, err := r.Next(); !errors.Is(err, broken) {
			t.Errorf("got %v, want the source's error", err)
		}
	}
	if err := r.Close(); err != nil {
		t.Errorf("the error was told before: %v", err)
	}
}

// TestCloseEarly ends the source when it was read in part.
func TestCloseEarly(t *testing.T) {
	t.Parallel()
	ended := false
	objects := random(t, rand.New(rand.NewPCG(1, 2)), 10)
	r := transfer.NewReader(func(emit transfer.Emit) error {
		defer func() { ended = true }()
		return sourceOf(objects)(emit)
	}, nil)
	if _, _, _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil || !ended {
		t.Errorf("ended %t, %v", ended, err)
	}
}

// TestHardLink reads a link as the file that it is another name of.
func TestHardLink(t *testing.T) {
	t.Parallel()
	objects := []object{{&layer.Entry{Kind: layer.Hardlink, Name: "Files/b", Link: "Files/a", NT: &ntfs.Meta{}}, ""}}
	r := transfer.NewReader(sourceOf(objects), func(name string, emit transfer.Emit) error {
		if name != "Files/a" {
			return errdefs.ErrNotFound
		}
		return errors.Join(
			emit(&layer.Entry{Kind: layer.File, Name: name, Size: 3, NT: &ntfs.Meta{Attributes: ntfs.AttrHidden}}, strings.NewReader("abc")),
			emit(&layer.Entry{Kind: layer.Stream, Name: name, Stream: "s", Size: 1, NT: new(ntfs.Meta)}, strings.NewReader("x")),
		)
	})
	w, got := collect(t)
	if err := pump(r, w, 100); err != nil {
		t.Fatal(err)
	}
	if len(*got) != 2 || (*got)[0].Content != "abc" || (*got)[0].Entry.Name != "Files/b" || (*got)[0].Entry.NT.Attributes != ntfs.AttrHidden ||
		(*got)[1].Entry.Stream != "s" || (*got)[1].Content != "x" {
		t.Errorf("got %+v", *got)
	}
	r = transfer.NewReader(sourceOf(objects), func(string, transfer.Emit) error { return errdefs.ErrNotFound })
	if _, _, _, err := r.Next(); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "Files/b is a link to Files/a") {
		t.Errorf("a link to nothing: %v", err)
	}
}

func TestWriterRefuses(t *testing.T) {
	t.Parallel()
	info := &winio.FileBasicInfo{}
	for _, c := range []struct {
		name  string
		do    func(w *transfer.Writer) error
		class error
		text  string
	}{
		{"no info", func(w *transfer.Writer) error { return w.Add(`Files\x`, nil) }, errdefs.ErrInvalidArgument, "times and attributes"},
		{"twice", func(w *transfer.Writer) error { return errors.Join(w.Add(`Files\x`, info), w.Add(`Files\X`, info)) }, errdefs.ErrAlreadyExists, "has it already"},
		{"upwards", func(w *transfer.Writer) error { return w.Add(`Files\..\x`, info) }, errdefs.ErrInvalidArgument, "clean"},
		{"absolute", func(w *transfer.Writer) error { return w.Add(`\Files`, info) }, errdefs.ErrInvalidArgument, "clean"},
		{"colon", func(w *transfer.Writer) error { return w.Add(`Files\a:b`, info) }, errdefs.ErrInvalidArgument, ""},
		{"NUL", func(w *transfer.Writer) error { return w.Add("Files\\a\x00", info) }, errdefs.ErrInvalidArgument, ""},
		{"link outside", func(w *transfer.Writer) error { return w.AddLink(`Files\a`, `Hives\System_Delta`) }, errdefs.ErrInvalidArgument, "invalid hard link in layer"},
		{"link upwards", func(w *transfer.Writer) error { return w.AddLink(`Files\a`, `Files\..\..\x`) }, errdefs.ErrInvalidArgument, "clean"},
		{"tombstone", func(w *transfer.Writer) error { return w.Remove(`Hives\x`) }, errdefs.ErrInvalidArgument, "invalid tombstone"},
		{"tombstone of all", func(w *transfer.Writer) error { return w.Remove(`Files`) }, errdefs.ErrInvalidArgument, "invalid tombstone"},
		{"utility VM", func(w *transfer.Writer) error { return w.Add(`UtilityVM\Files`, info) }, errdefs.ErrInvalidArgument, "missing UtilityVM directory"},
		{"in the utility VM", func(w *transfer.Writer) error {
			return errors.Join(w.Add(`UtilityVM`, info), w.Add(`UtilityVM\x`, info))
		}, errdefs.ErrInvalidArgument, "invalid UtilityVM layer"},
		{"no file", func(w *transfer.Writer) error { _, err := w.Write([]byte("x")); return err }, errdefs.ErrFailedPrecondition, "no file"},
		{"no backup stream", func(w *transfer.Writer) error {
			_ = w.Add(`Files\x`, info)
			_, _ = w.Write([]byte("this is no backup stream"))
			return w.Close()
		}, errdefs.ErrInvalidArgument, "backup stream"},
		{"cut off", func(w *transfer.Writer) error {
			_ = w.Add(`Files\x`, info)
			_, _ = w.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'x'})
			return w.Close()
		}, errdefs.ErrInvalidArgument, "backup stream"},
		{"content of a directory", func(w *transfer.Writer) error {
			_ = w.Add(`Files\x`, &winio.FileBasicInfo{FileAttributes: 0x10})
			_, _ = w.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'x'})
			return w.Close()
		}, errdefs.ErrInvalidArgument, "1 bytes of content"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, _ := collect(t)
			err := c.do(w)
			if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v", err)
			}
			if again := w.Add(`Files\later`, info); again == nil {
				t.Error("the writer goes on after a failure")
			}
		})
	}
}

// TestWriterLeavesNothing looks for what is kept of large files.
func TestWriterLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := transfer.NewWriter(func(*layer.Entry, io.Reader) error { return nil }, dir)
	if err := w.Add(`Files`, &winio.FileBasicInfo{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(bytes.Repeat([]byte{0xff}, 5<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err == nil {
		t.Error("this is no backup stream")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// FuzzWriter takes anything for a backup stream: an entry whose content is as long as it says, or an error.
func FuzzWriter(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'x'}, uint32(0x20))
	f.Fuzz(func(t *testing.T, stream []byte, attributes uint32) {
		w := transfer.NewWriter(func(e *layer.Entry, content io.Reader) error {
			if e.Size > 1<<24 {
				return errors.New("enough")
			}
			if content == nil {
				content = strings.NewReader("")
			}
			n, err := io.Copy(io.Discard, content)
			if err == nil && n != e.Size {
				t.Errorf("%d bytes for a size of %d", n, e.Size)
			}
			return err
		}, t.TempDir())
		_ = w.Add(`Files\x`, &winio.FileBasicInfo{FileAttributes: attributes})
		_, _ = w.Write(stream)
		_ = w.Close()
	})
}

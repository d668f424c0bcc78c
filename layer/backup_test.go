package layer_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// backupObject is an entry with its content.
type backupObject struct {
	Entry   *layer.Entry
	Content string
}

// backupOf returns the backup stream of a file and its alternate streams.
func backupOf(t *testing.T, objects ...backupObject) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, o := range objects {
		r, err := layer.BackupStream(o.Entry, strings.NewReader(o.Content))
		if err == nil {
			_, err = io.Copy(&out, r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// readBackup reads a backup stream as that of a file or directory.
func readBackup(b []byte, kind layer.Kind, most int64) (objects []backupObject, err error) {
	e := &layer.Entry{Name: "Files/x", Kind: kind, NT: new(ntfs.Meta)}
	stream := io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
	err = layer.ReadBackup(e, stream, func(e *layer.Entry, content io.Reader) error {
		if e.Size > most {
			return errTooMuch
		}
		o := backupObject{Entry: e}
		if content != nil {
			b, err := io.ReadAll(content)
			if err != nil {
				return err
			}
			o.Content = string(b)
		}
		objects = append(objects, o)
		return nil
	})
	return objects, err
}

var errTooMuch = errors.New("more than the test reads")

var backupEqual = cmp.Options{cmpopts.IgnoreUnexported(layer.Entry{}), cmpopts.EquateEmpty()}

func backupEntry(kind layer.Kind, size int64) *layer.Entry {
	return &layer.Entry{Name: "Files/x", Kind: kind, Size: size, NT: new(ntfs.Meta)}
}

// TestBackupStream writes entries as backup streams and reads them again.
func TestBackupStream(t *testing.T) {
	t.Parallel()
	stream := func(name string, size int64) *layer.Entry {
		e := backupEntry(layer.Stream, size)
		e.Stream = name
		return e
	}
	meta := backupEntry(layer.File, 3)
	meta.NT.ObjectID = bytes.Repeat([]byte{7}, 16)
	meta.NT.EA = []ntfs.EA{{Name: "A", Flags: 0x80, Value: []byte("v")}}
	meta.NT.Kept = []ntfs.KeptStream{{ID: ntfs.StreamProperty, Data: []byte("p")}, {ID: ntfs.StreamLink, Name: "n", Data: []byte("l")}}
	sparse := backupEntry(layer.File, 100)
	sparse.Data = []layer.Extent{{Offset: 10, Length: 2}, {Offset: 50, Length: 1}}
	hole := stream("hole", 20)
	hole.Data = []layer.Extent{}
	link := backupEntry(layer.Symlink, 0)
	link.Link = `..\y`
	var err error
	if link.NT.Reparse, err = ntfs.NewLink(ntfs.TagSymlink, link.Link).Append(nil); err != nil {
		t.Fatal(err)
	}
	holes := make([]byte, 100)
	copy(holes[10:], "ab")
	holes[50] = 'c'
	for name, objects := range map[string][]backupObject{
		"empty":     {{backupEntry(layer.File, 0), ""}},
		"directory": {{backupEntry(layer.Dir, 0), ""}, {stream("of a directory", 1), "x"}},
		"metadata":  {{meta, "abc"}, {stream("a", 0), ""}, {stream("b", 2), "bb"}},
		"sparse":    {{sparse, string(holes)}, {hole, strings.Repeat("\x00", 20)}},
		"link":      {{link, ""}},
	} {
		kind := objects[0].Entry.Kind
		if kind == layer.Symlink {
			kind = layer.File
		}
		got, err := readBackup(backupOf(t, objects...), kind, 1<<20)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(objects, got, backupEqual); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}

// TestBackupStreamForward gives the content of a sparse file by a reader that only goes forward.
func TestBackupStreamForward(t *testing.T) {
	t.Parallel()
	e := backupEntry(layer.File, 10)
	e.Data = []layer.Extent{{Offset: 2, Length: 3}, {Offset: 9, Length: 1}}
	const content = "\x00\x00abc\x00\x00\x00\x00z"
	r, err := layer.BackupStream(e, io.MultiReader(strings.NewReader(content)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if want := backupOf(t, backupObject{e, content}); err != nil || !bytes.Equal(b, want) {
		t.Errorf("got %x, %v, want %x", b, err, want)
	}
}

// TestBackupStreamShort has less content than the entry says.
func TestBackupStreamShort(t *testing.T) {
	t.Parallel()
	sparse := backupEntry(layer.File, 10)
	sparse.Data = []layer.Extent{{Offset: 8, Length: 2}}
	for _, e := range []*layer.Entry{backupEntry(layer.File, 10), sparse} {
		r, err := layer.BackupStream(e, io.MultiReader(strings.NewReader("short")))
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "Files/x") {
			t.Errorf("got %v", err)
		}
	}
	if _, err := layer.BackupStream(backupEntry(layer.File, 1), nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no content: %v", err)
	}
}

// FuzzReadBackup takes anything for a backup stream: entries whose content is as long as they say, which make a backup stream
// that reads the same, or an error.
func FuzzReadBackup(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'x'}, false)
	f.Add([]byte{1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0}, false)
	f.Add([]byte{4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, ':', 0, 'a', 0, 'x'}, true)
	f.Fuzz(func(t *testing.T, b []byte, ofDir bool) {
		kind := layer.File
		if ofDir {
			kind = layer.Dir
		}
		first, err := readBackup(b, kind, 1<<20)
		if err != nil {
			return
		}
		for _, o := range first {
			if int64(len(o.Content)) != o.Entry.Size {
				t.Fatalf("%d bytes for a size of %d", len(o.Content), o.Entry.Size)
			}
		}
		again, err := readBackup(backupOf(t, first...), kind, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, again, backupEqual); diff != "" {
			t.Errorf("-first +again:\n%s", diff)
		}
	})
}

// TestNTOrder judges entries that no Reader has seen, and makes up what is missing.
func TestNTOrder(t *testing.T) {
	t.Parallel()
	file := func(name string) *layer.Entry { return &layer.Entry{Name: name, NT: new(ntfs.Meta)} }
	o := layer.NewNTOrder(layer.ReadOptions{})
	names := func(entries []*layer.Entry, err error) string {
		if err != nil {
			return err.Error()
		}
		var all []string
		for _, e := range entries {
			if e.Kind != layer.Dir || !e.Implied {
				t.Errorf("%s is a %v", e.Name, e.Kind)
			}
			all = append(all, e.Name)
		}
		return strings.Join(all, " ")
	}
	wci, err := ntfs.WCI{Version: 1, Path: "x"}.Reparse(ntfs.TagWCI1)
	if err != nil {
		t.Fatal(err)
	}
	odd := file("Files/a/b/odd")
	if odd.NT.Reparse, err = wci.Append(nil); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		e    *layer.Entry
		want string
	}{
		{file("Files/a/b/c"), "Files Files/a Files/a/b"},
		{odd, ""},
		{file("Files/A/x"), ""},
		{file("Files/a/b/c/d"), `read layer entry "Files/a/b/c/d": name leads through a file: invalid argument`},
		{&layer.Entry{Name: "Files/y"}, `read layer entry "Files/y": it is of another system's layer: invalid argument`},
		{&layer.Entry{Name: "Files/z", NT: &ntfs.Meta{SecurityDescriptor: []byte("x")}}, "no security descriptor"},
	} {
		if got := names(o.Place(step.e)); got != step.want && (step.want == "" || !strings.Contains(got, step.want)) {
			t.Errorf("%s: %q, want %q", step.e.Name, got, step.want)
		}
	}
	if got := names(o.Rest()); got != "Hives" {
		t.Errorf("at the end: %q", got)
	}
	limited := layer.NewNTOrder(layer.ReadOptions{Limits: layer.Limits{Entries: 2}})
	if _, err := limited.Place(file("Files/a/b")); !errdefs.IsResourceExhausted(err) {
		t.Errorf("beyond the limit: %v", err)
	}
}

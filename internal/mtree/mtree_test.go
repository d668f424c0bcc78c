package mtree_test

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcompute/hcs/internal/mtree"
)

// all is in the order that a Writer wants.
var all = []mtree.Entry{
	{Name: ".", Type: mtree.Dir, Mode: 0o755, Nlink: 4, Size: 4096},
	{Name: "a b", Type: mtree.File, Mode: 0o644, UID: 7, Nlink: 2, Size: 3, Seconds: -5, SHA256: [32]byte{1, 2, 255}},
	{Name: "l", Type: mtree.Link, Mode: 0o777, Nlink: 1, Size: 4, Link: "x \\\n\xff"},
	{Name: "p#*?[", Type: mtree.Fifo, Mode: 0, Nlink: 1, Inode: 77, Changed: time.Unix(5, 6)},
	{Name: "d", Type: mtree.Dir, Mode: 0o4755, UID: 1, GID: 4294967294, Nlink: 2, Size: 4096, Xattrs: map[string]string{"user.a b": "\x00\n", "user.empty": ""}},
	{Name: "d/ä\t\x7f\\", Type: mtree.Char, Mode: 0o600, UID: 1, GID: 4294967294, Nlink: 1, Seconds: 1 << 40, Inode: 78, Changed: time.Unix(5, 7), Major: 1, Minor: 1 << 20},
	{Name: "d/e", Type: mtree.Dir, Mode: 0o700, Nlink: 2},
	{Name: "d/e/f", Type: mtree.File, Mode: 0o664, Nlink: 1},
	{Name: "z", Type: mtree.Dir, Mode: 0o700, Nlink: 2},
}

func write(t testing.TB, entries []mtree.Entry, done time.Time) []byte {
	t.Helper()
	var b bytes.Buffer
	w := mtree.NewWriter(&b)
	for i := range entries {
		if err := w.Write(&entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(done); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	done := time.Unix(1, 2)
	text := write(t, all, done)
	m, err := mtree.Read(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if !m.Done.Equal(done) || len(m.Entries) != len(all) {
		t.Errorf("%d entries, done at %v", len(m.Entries), m.Done)
	}
	for _, want := range all {
		got := m.Entries[want.Name]
		if got == nil {
			t.Errorf("%q is not there\n%s", want.Name, text)
			continue
		}
		same := got.Changed.Equal(want.Changed) && maps.Equal(got.Xattrs, want.Xattrs)
		x, y := *got, want
		x.Keys, x.Changed, y.Changed, x.Xattrs, y.Xattrs = 0, time.Time{}, time.Time{}, nil, nil
		if !same || x.Name != y.Name || x.Type != y.Type || x.Mode != y.Mode || x.UID != y.UID || x.GID != y.GID || x.Link != y.Link ||
			x.Nlink != y.Nlink || x.Size != y.Size || x.Seconds != y.Seconds || x.SHA256 != y.SHA256 || x.Inode != y.Inode || x.Major != y.Major || x.Minor != y.Minor {
			t.Errorf("%q is\n%+v, want\n%+v", want.Name, *got, want)
		}
	}
}

func TestWriterKeepsOrder(t *testing.T) {
	t.Parallel()
	w := mtree.NewWriter(new(bytes.Buffer))
	for _, e := range []mtree.Entry{{Name: "f", Type: mtree.File}, {Name: ".", Type: mtree.Dir}, {Name: "d/f", Type: mtree.File}} {
		if err := w.Write(&e); (err != nil) != (e.Name != ".") {
			t.Errorf("%q: %v", e.Name, err)
		}
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, names string }{
		{"", ""},
		{"#mtree\n. type=dir\nf type=file size=1\nd type=dir\n    g \\\n  size=3 mode=0644\n..\n..\n", ". d d/g f"},
		{"/set type=dir\nd\n/set type=file\nf\n..\ng\n", "d d/f g"},
		{"./usr/x type=file\n./usr type=dir\nf type=file\n", "f usr usr/x"},
		{`\101\s\n type=file` + "\n", "A \n"},
		{"f unknown=1 flags=none optional\n", "f"},
	} {
		m, err := mtree.Read(strings.NewReader(c.text))
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if got := strings.Join(slices.Sorted(maps.Keys(m.Entries)), " "); got != c.names {
			t.Errorf("%q has %q, want %q", c.text, got, c.names)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"f mode=9\n", "f size=x\n", "f uid=4294967296\n", "f sha256digest=00\n", "f sha256digest=" + strings.Repeat("g", 64) + "\n",
		`f\057g type=file` + "\n", `\056\056 type=file` + "\n", "../f type=file\n", "a/../../f type=file\n", `f\q` + "\n", `f\000` + "\n",
		"f xattr.user.x=!\n",
	} {
		if _, err := mtree.Read(strings.NewReader(text)); !errors.Is(err, mtree.ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// FuzzRead reads anything; what can be read has names that stay inside.
func FuzzRead(f *testing.F) {
	f.Add(write(f, all, time.Unix(3, 4)))
	f.Add([]byte("/set type=dir xattr.user.x=YQ==\nd\nf type=file link=\\M^?\\M-a\\^A xattr.user.y=YQ==\n..\n/unset x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		if _, err := mtree.ReadDone(r); err != nil || r.Len() != len(data) {
			t.Errorf("its end is read: %v, and %d bytes are left", err, r.Len())
		}
		m, err := mtree.Read(bytes.NewReader(data))
		if err != nil {
			if !errors.Is(err, mtree.ErrInvalid) {
				t.Errorf("%v is of no class", err)
			}
			return
		}
		for name := range m.Entries {
			if name == "" || name[0] == '/' || name == ".." || strings.HasPrefix(name, "../") || strings.ContainsRune(name, 0) {
				t.Errorf("name %q", name)
			}
		}
	})
}

// TestPlaceCompare has the places of a manifest in their order, each pair both ways round.
func TestPlaceCompare(t *testing.T) {
	t.Parallel()
	places := []mtree.Place{
		{".", true},
		{".a", false},
		{"a", false},
		{"a-", false},
		{"b", false},
		{".a", true},
		{".a/b", true},
		{"a", true},
		{"a/z", false},
		{"a/b", true},
		{"a/b/c", false},
		{"a/c", true},
		{"a-", true},
		{"a-/b", false},
		{"a.b", true},
		{"b", true},
	}
	for i, a := range places {
		for j, b := range places {
			if got, want := a.Compare(b), i-j; (got < 0) != (want < 0) || (got > 0) != (want > 0) {
				t.Errorf("%v compared with %v is %d", a, b, got)
			}
		}
	}
	for i := 1; i < len(all); i++ {
		if all[i-1].Place().Compare(all[i].Place()) >= 0 {
			t.Errorf("%q does not stand before %q", all[i-1].Name, all[i].Name)
		}
	}
}

func TestReadDone(t *testing.T) {
	t.Parallel()
	done := time.Unix(1_700_000_000, 5)
	text := write(t, all, done)
	for name, c := range map[string]struct {
		text string
		want time.Time
	}{
		"complete":  {string(text), done},
		"cut off":   {string(text[:len(text)/2]), time.Time{}},
		"not known": {string(write(t, all, time.Time{})), time.Time{}},
		"followed":  {string(text) + "z size=1 type=file uid=0 gid=0\n", time.Time{}},
		"empty":     {"", time.Time{}},
	} {
		r := strings.NewReader(c.text)
		got, err := mtree.ReadDone(r)
		if err != nil || !got.Equal(c.want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
		if r.Len() != len(c.text) {
			t.Errorf("%s: %d of %d bytes are left to read", name, r.Len(), len(c.text))
		}
	}
}

package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/regf"
	"github.com/hostcompute/hcs/rootfs"
)

// A ValueChange is what an object had and has.
type ValueChange struct {
	What   string `json:"what"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// ntFile is an object of a Windows image.
type ntFile struct {
	entry *layer.Entry
	sum   [sha256.Size]byte
	hive  []byte // what a registry hive holds
}

// ntFiles are the objects that a Windows image's layers add up to, alternate
// streams among them, by name in upper case.
func (s Side) ntFiles(ctx context.Context) (map[string]*ntFile, error) {
	files := make(map[string]*ntFile)
	err := FlattenWindows(ctx, blobs(s.Source, s.Image), Reading{s.Limits, s.Strict, s.Warn}, func(e *layer.Entry, content io.Reader) error {
		own := *e
		meta := *e.NT
		own.NT = &meta
		f := &ntFile{entry: &own}
		if e.Kind == layer.Hardlink {
			target := files[ntKey(e.Link, "")]
			if target == nil {
				return invalid("hard link %q leads to %q, which is not there", e.Name, e.Link)
			}
			f.sum, f.hive = target.sum, target.hive
			own = *target.entry
			own.Name = e.Name
		}
		if e.Kind == layer.File || e.Kind == layer.Stream {
			if err := f.read(content); err != nil {
				return err
			}
		}
		files[ntKey(e.Name, e.Stream)] = f
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", s.Image.Name, err)
	}
	return files, nil
}

func ntKey(name, stream string) string {
	if stream != "" {
		name += ":" + stream
	}
	return ntfs.Upcase(name)
}

func (f *ntFile) read(content io.Reader) error {
	h := sha256.New()
	w := io.Writer(h)
	var hive bytes.Buffer
	if hiveFile(f.entry) != "" && f.entry.Size <= maxHive {
		w = io.MultiWriter(h, &hive)
	}
	if _, err := io.Copy(w, content); err != nil {
		return err
	}
	h.Sum(f.sum[:0])
	f.hive = hive.Bytes()
	return nil
}

// hiveFile returns the hive that an entry of a base layer is, "" if it is
// none.
func hiveFile(e *layer.Entry) rootfs.HiveName {
	if e.Kind != layer.File || e.Stream != "" {
		return ""
	}
	i := slices.IndexFunc(rootfs.HiveNames(), func(h rootfs.HiveName) bool { return ntfs.EqualFold(e.Name, h.File()) })
	if i < 0 {
		return ""
	}
	return rootfs.HiveNames()[i]
}

// diffNT compares the files of two images for Windows.
func diffNT(ctx context.Context, a, b Side, list []FileChange) ([]FileChange, error) {
	if a, b := a.Image.Config.OS, b.Image.Config.OS; layer.EncodingOf(a) != layer.EncodingOf(b) {
		return nil, invalid("files of %s and of %s cannot be compared", a, b)
	}
	before, err := a.ntFiles(ctx)
	if err != nil {
		return nil, err
	}
	after, err := b.ntFiles(ctx)
	if err != nil {
		return nil, err
	}
	keys := sortedKeys(before)
	for key := range after {
		if before[key] == nil {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b string) int { return strings.Compare(ntOrder(a), ntOrder(b)) })
	for _, key := range keys {
		was, is := before[key], after[key]
		switch {
		case was == nil:
			list = append(list, FileChange{Name: is.name(), Kind: rootfs.Added.String()})
		case is == nil:
			list = append(list, FileChange{Name: was.name(), Kind: rootfs.Deleted.String()})
		default:
			c := was.changes(is)
			if len(c.What) > 0 {
				list = append(list, c)
			}
		}
	}
	return list, nil
}

// ntOrder puts what is in a directory right behind it.
func ntOrder(key string) string { return strings.ReplaceAll(key, "/", "\x00") }

func (f *ntFile) name() string {
	if f.entry.Stream != "" {
		return f.entry.Name + ":" + f.entry.Stream
	}
	return f.entry.Name
}

// changes says what is not the same.
func (f *ntFile) changes(g *ntFile) FileChange {
	a, b := f.entry, g.entry
	c := FileChange{Name: g.name(), Kind: rootfs.Modified.String()}
	if a.Kind != b.Kind {
		c.What = []string{"type"}
		c.Values = []ValueChange{{"type", a.Kind.String(), b.Kind.String()}}
		return c
	}
	for _, v := range []ValueChange{
		{"name", path.Base(f.name()), path.Base(g.name())},
		{"attributes", a.NT.Attributes.String(), b.NT.Attributes.String()},
		{"target", targetOf(a), targetOf(b)},
	} {
		if v.Before != v.After {
			c.What, c.Values = append(c.What, v.What), append(c.Values, v)
		}
	}
	if !bytes.Equal(a.NT.SecurityDescriptor, b.NT.SecurityDescriptor) {
		c.What = append(c.What, "security")
		c.Values = append(c.Values, ValueChange{"security", sddlOf(a), sddlOf(b)})
	}
	for _, v := range []struct {
		name    string
		differs bool
	}{
		{"time", !sameTime(a.ModTime, b.ModTime)},
		{"created", !sameTime(a.NT.CreationTime, b.NT.CreationTime)},
		{"content", f.sum != g.sum || a.Size != b.Size},
		{"reparse", !bytes.Equal(a.NT.Reparse, b.NT.Reparse) && targetOf(a) == targetOf(b)},
		{"ea", !slices.EqualFunc(a.NT.EA, b.NT.EA, func(x, y ntfs.EA) bool {
			return x.Name == y.Name && x.Flags == y.Flags && bytes.Equal(x.Value, y.Value)
		})},
	} {
		if v.differs && (a.Kind != layer.Stream || v.name == "content") {
			c.What = append(c.What, v.name)
		}
	}
	if slices.Contains(c.What, "content") && hiveFile(b) != "" {
		text, err := registryChange(f.hive, g.hive, hiveKeys[hiveFile(b)])
		if err != nil {
			text = "the hives cannot be compared: " + err.Error() + "\n"
		}
		c.Registry = text
	}
	return c
}

// sameTime compares times by the second, as for other images.
func sameTime(a, b time.Time) bool { return a.Unix() == b.Unix() }

func targetOf(e *layer.Entry) string {
	if link, err := ntfs.ParseLink(e.NT.Reparse); err == nil {
		return link.Target()
	}
	return ""
}

// sddlOf returns a descriptor as text, or what keeps it from being told so.
func sddlOf(e *layer.Entry) string {
	if e.NT.SecurityDescriptor == nil {
		return ""
	}
	d, err := ntfs.ParseSecurityDescriptor(e.NT.SecurityDescriptor)
	if err == nil {
		var text string
		if text, err = d.SDDL(); err == nil {
			return text
		}
	}
	return fmt.Sprintf("%d bytes: %v", len(e.NT.SecurityDescriptor), err)
}

// hiveKeys are where a system shows its hives.
var hiveKeys = map[rootfs.HiveName]string{
	rootfs.DefaultHive: `HKEY_USERS\.DEFAULT`, rootfs.SAMHive: `HKEY_LOCAL_MACHINE\SAM`,
	rootfs.SecurityHive: `HKEY_LOCAL_MACHINE\SECURITY`, rootfs.SoftwareHive: `HKEY_LOCAL_MACHINE\SOFTWARE`,
	rootfs.SystemHive: `HKEY_LOCAL_MACHINE\SYSTEM`,
}

// registryChange returns what makes one hive of another, as .reg text.
func registryChange(lower, upper []byte, at string) (string, error) {
	var hives [2]*regf.Hive
	for i, data := range [][]byte{lower, upper} {
		h, err := parseHive(path.Base(at), data)
		if err != nil {
			return "", err
		}
		hives[i] = h
	}
	t, err := regf.Diff(hives[0], hives[1])
	if err != nil {
		return "", err
	}
	data, err := t.Bytes()
	if err != nil {
		return "", err
	}
	delta, err := regf.Parse(data)
	if err != nil {
		return "", err
	}
	root, err := delta.Root()
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	err = regf.WriteText(&text, root, at, regf.UTF8)
	return text.String(), err
}

// parseHive reads a hive. An empty file, which makers of small base layers put
// in its place, is a hive with nothing in it.
func parseHive(name string, data []byte) (*regf.Hive, error) {
	if len(data) == 0 {
		t, err := regf.Minimal(name, 0)
		if err == nil {
			data, err = t.Bytes()
		}
		if err != nil {
			return nil, err
		}
	}
	h, err := regf.Parse(data)
	if err != nil {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return h, err
}

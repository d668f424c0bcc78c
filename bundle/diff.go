package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// A Side is one of two images that are compared.
type Side struct {
	Source image.Source
	Image  *image.Image
	Limits layer.Limits // of each layer
	// Strict and Warn are those of [Reading], for images for Windows.
	Strict bool
	Warn   func(layer int, w layer.Warning)
}

// A Difference is what one image has otherwise than another.
type Difference struct {
	Config []ConfigChange `json:"config"`
	Files  []FileChange   `json:"files"`
}

// A ConfigChange is a value of the configuration, by its path in the JSON
// document. Nil is no value.
type ConfigChange struct {
	Key    string          `json:"key"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

// A FileChange is an object that is not the same in both images. Of a
// directory that is added or deleted all that is in it is listed as well.
type FileChange struct {
	Name string   `json:"name"`
	Kind string   `json:"kind"`           // "added", "modified" or "deleted"
	What []string `json:"what,omitempty"` // what was modified: "type", "mode", "owner", "time", "content", "link", "device", "xattrs"

	// Of images for Windows What may also have "name" (its case), "attributes",
	// "security", "target", "created", "reparse", "ea"; Values says more of
	// some. Names are those in layers, with a stream's behind a colon.
	Values   []ValueChange `json:"values,omitempty"`
	Registry string        `json:"registry,omitempty"` // what changes in a hive, as .reg text
}

// Diff compares two images: their configurations, without history and
// layers, and the files that the layers add up to. Times are compared by the
// second. The layers are read and not unpacked, so that a path through a
// symbolic link of a lower layer counts as one of its own.
func Diff(ctx context.Context, a, b Side) (Difference, error) {
	d, err := diff(ctx, a, b)
	if err != nil {
		return d, fmt.Errorf("compare images: %w", err)
	}
	return d, nil
}

func diff(ctx context.Context, a, b Side) (Difference, error) {
	d := Difference{Config: []ConfigChange{}, Files: []FileChange{}}
	var err error
	if d.Config, err = diffConfig(a.Image, b.Image, d.Config); err != nil {
		return d, err
	}
	if slices.Equal(a.Image.DiffIDs(), b.Image.DiffIDs()) {
		return d, nil
	}
	if isWindows(a.Image) || isWindows(b.Image) {
		d.Files, err = diffNT(ctx, a, b, d.Files)
		return d, err
	}
	before, err := a.tree(ctx)
	if err != nil {
		return d, err
	}
	after, err := b.tree(ctx)
	if err != nil {
		return d, err
	}
	d.Files = before.diff(after, ".", d.Files)
	return d, nil
}

func diffConfig(a, b *image.Image, list []ConfigChange) ([]ConfigChange, error) {
	var values [2]map[string]json.RawMessage
	for i, img := range []*image.Image{a, b} {
		var top map[string]json.RawMessage
		if err := json.Unmarshal(img.RawConfig, &top); err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		var inner map[string]json.RawMessage
		if err := json.Unmarshal(top["config"], &inner); err != nil && top["config"] != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		for _, key := range []string{"config", "rootfs", "history"} {
			delete(top, key)
		}
		for key, value := range inner {
			top["config."+key] = value
		}
		values[i] = top
	}
	keys := maps.Clone(values[0])
	maps.Copy(keys, values[1])
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		before, after := values[0][key], values[1][key]
		if !bytes.Equal(before, after) {
			list = append(list, ConfigChange{key, before, after})
		}
	}
	return list, nil
}

// node is an object of the tree that layers add up to.
type node struct {
	entry    layer.Entry
	sum      [sha256.Size]byte // of a file's content
	fresh    bool              // the layer that is being read brought it
	children map[string]*node  // nil for what is no directory
}

func newDir() *node {
	return &node{entry: layer.Entry{Kind: layer.Dir, Mode: 0o755}, children: map[string]*node{}}
}

// tree adds an image's layers up.
func (s Side) tree(ctx context.Context) (*node, error) {
	top := newDir()
	for i := range s.Image.Manifest.Layers {
		top.settle()
		err := eachEntry(ctx, s.Source, s.Image, i, s.Limits, func(e *layer.Entry, content *layer.Blob) error { return top.apply(e, content) })
		if err != nil {
			return nil, fmt.Errorf("image %q: layer %d: %w", s.Image.Name, i, err)
		}
	}
	return top, nil
}

// settle makes everything that of a lower layer.
func (n *node) settle() {
	n.fresh = false
	for _, c := range n.children {
		c.settle()
	}
}

func (n *node) apply(e *layer.Entry, content io.Reader) error {
	switch e.Kind {
	case layer.Opaque:
		n.at(e.Name).fade()
		return nil
	case layer.Whiteout:
		parent := n.at(path.Dir(e.Name))
		if c := parent.children[path.Base(e.Name)]; c != nil && !c.fade() {
			delete(parent.children, path.Base(e.Name))
		}
		return nil
	}
	fresh := &node{entry: *e, fresh: true}
	switch e.Kind {
	case layer.Hardlink:
		target := n.at(path.Dir(e.Link)).children[path.Base(e.Link)]
		if target == nil {
			return invalid("hard link %q leads to %q, which is not there", e.Name, e.Link)
		}
		fresh.entry, fresh.sum = target.entry, target.sum
	case layer.File:
		h := sha256.New()
		if _, err := io.Copy(h, content); err != nil {
			return err
		}
		h.Sum(fresh.sum[:0])
	case layer.Dir:
		fresh.children = map[string]*node{}
	}
	n.put(e.Name, fresh)
	return nil
}

// at returns the directory of that name, which it makes if it is not there.
func (n *node) at(name string) *node {
	if name == "." {
		return n
	}
	for part := range strings.SplitSeq(name, "/") {
		next := n.children[part]
		if next == nil || next.children == nil {
			next = newDir()
			next.fresh = true
			n.children[part] = next
		}
		n = next
	}
	return n
}

// put puts an object in its place. A directory keeps what is in it.
func (n *node) put(name string, fresh *node) {
	if name == "." {
		n.entry, n.fresh = fresh.entry, true
		return
	}
	parent, last := n.at(path.Dir(name)), path.Base(name)
	if old := parent.children[last]; old != nil && fresh.children != nil && old.children != nil {
		fresh.children = old.children
	}
	parent.children[last] = fresh
}

// fade removes what lower layers have at and below an object, and reports
// whether anything stays.
func (n *node) fade() bool {
	for name, c := range n.children {
		if !c.fade() {
			delete(n.children, name)
		}
	}
	return n.fresh || len(n.children) > 0
}

// diff adds the differences of two directories to the list, in the order of
// names.
func (n *node) diff(other *node, name string, list []FileChange) []FileChange {
	if what := n.changes(other); len(what) > 0 {
		list = append(list, FileChange{Name: name, Kind: rootfs.Modified.String(), What: what})
	}
	names := maps.Clone(n.children)
	if names == nil {
		names = map[string]*node{}
	}
	maps.Copy(names, other.children)
	for _, last := range slices.Sorted(maps.Keys(names)) {
		full := path.Join(name, last)
		a, b := n.children[last], other.children[last]
		switch {
		case a == nil:
			list = b.all(full, rootfs.Added, list)
		case b == nil:
			list = a.all(full, rootfs.Deleted, list)
		default:
			list = a.diff(b, full, list)
		}
	}
	return list
}

func (n *node) all(name string, kind rootfs.ChangeKind, list []FileChange) []FileChange {
	list = append(list, FileChange{Name: name, Kind: kind.String()})
	for _, last := range slices.Sorted(maps.Keys(n.children)) {
		list = n.children[last].all(path.Join(name, last), kind, list)
	}
	return list
}

// changes names what is not the same, of the objects themselves.
func (n *node) changes(other *node) []string {
	a, b := &n.entry, &other.entry
	if a.Kind != b.Kind {
		return []string{"type"}
	}
	var what []string
	for _, c := range []struct {
		name    string
		differs bool
	}{
		{"mode", a.Mode != b.Mode && a.Kind != layer.Symlink},
		{"owner", a.UID != b.UID || a.GID != b.GID},
		{"time", a.ModTime.Unix() != b.ModTime.Unix()},
		{"content", n.sum != other.sum || a.Kind == layer.File && a.Size != b.Size},
		{"link", a.Kind == layer.Symlink && a.Link != b.Link},
		{"device", a.Major != b.Major || a.Minor != b.Minor},
		{"xattrs", !maps.Equal(a.Xattrs, b.Xattrs)},
	} {
		if c.differs {
			what = append(what, c.name)
		}
	}
	return what
}

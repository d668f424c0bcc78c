package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const minIDPrefix = 3 // digits: fewer are more likely a mistake than an ID

// A Store keeps images under names. It is an OCI layout, which other tools
// can read: index.json lists the manifests, each with its name in full
// ("debian:12") in the annotation org.opencontainers.image.ref.name. An image
// that has lost its name to another stays without one until Prune.
//
// Many goroutines and processes may use a store at once. Readers take no
// locks. Writers of index.json hold an exclusive lock on the directory;
// whoever adds blobs that no image has yet holds a shared lock on blobs/,
// and who collects blobs an exclusive one. A temporary file is locked by its
// writer, so that one of a dead writer is known by having no lock.
//
// A Store is a [Source].
type Store struct {
	layout
}

var _ Source = (*Store)(nil)

// OpenStore opens the store in dir and makes it if it is not there.
func OpenStore(dir string) (*Store, error) {
	s := &Store{layout{dir: dir, what: "image store"}}
	_, err := os.Lstat(filepath.Join(dir, v1.ImageLayoutFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = s.create(context.Background(), 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", s, err)
	}
	return s, nil
}

// Dir returns the store's directory.
func (s *Store) Dir() string { return s.dir }

// Images returns all images, once for each name, sorted by name. Those that
// can be read are returned even if there is an error about others.
func (s *Store) Images(ctx context.Context) ([]*Image, error) {
	index, err := s.Index(ctx)
	if err != nil {
		return nil, err
	}
	var (
		images []*Image
		errs   []error
	)
	known := map[digest.Digest]*Image{}
	for _, d := range index.Manifests {
		img, err := s.open(ctx, d, known)
		if err != nil {
			errs = append(errs, fmt.Errorf("image %q: %w", describe(d), err))
			continue
		}
		images = append(images, img)
	}
	slices.SortStableFunc(images, func(a, b *Image) int { return strings.Compare(a.Name, b.Name) })
	return images, errors.Join(errs...)
}

// describe names a listed image: by its name, else by its digest.
func describe(d v1.Descriptor) string {
	if tag := tagOf(d); tag != "" {
		return tag
	}
	return string(d.Digest)
}

func (s *Store) open(ctx context.Context, d v1.Descriptor, known map[digest.Digest]*Image) (*Image, error) {
	if img := known[d.Digest]; img != nil {
		again := *img
		again.Name = tagOf(d)
		return &again, nil
	}
	img, err := read(ctx, s, d)
	if err != nil {
		return nil, err
	}
	img.Name = tagOf(d)
	if known != nil {
		known[d.Digest] = img
	}
	return img, nil
}

// Image returns an image by name ("debian", "debian:12", "debian@sha256:…"),
// by the digest of its manifest or configuration, or by at least three of
// these digests' first digits. It reads index.json, one manifest and one
// configuration. The error is of class ErrNotFound if there is none, and
// ErrInvalidArgument if digits fit several.
func (s *Store) Image(ctx context.Context, nameOrID string) (*Image, error) {
	index, err := s.Index(ctx)
	if err != nil {
		return nil, err
	}
	d, err := s.lookup(ctx, index.Manifests, nameOrID)
	if err != nil {
		return nil, err
	}
	img, err := s.open(ctx, d, nil)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", nameOrID, err)
	}
	return img, nil
}

// lookup finds what a name or an ID stands for in the list. Several manifests
// with one configuration are the same image, its layers compressed in other
// ways: then it is that with the first name.
func (s *Store) lookup(ctx context.Context, list []v1.Descriptor, nameOrID string) (v1.Descriptor, error) {
	return s.find(ctx, list, nameOrID, func(found []v1.Descriptor) (v1.Descriptor, bool) {
		return slices.MinFunc(found, byName), s.sameID(ctx, found)
	})
}

// byName has what has a name before what has none, and then what has the
// lesser digest.
func byName(a, b v1.Descriptor) int {
	x, y := tagOf(a), tagOf(b)
	if (x == "") != (y == "") {
		return -strings.Compare(x, y)
	}
	return cmp.Or(strings.Compare(x, y), strings.Compare(string(a.Digest), string(b.Digest)))
}

// sameID reports whether all are of one ID.
func (s *Store) sameID(ctx context.Context, list []v1.Descriptor) bool {
	var ids []digest.Digest
	for _, d := range list {
		img, err := read(ctx, s, d)
		if err != nil {
			return false
		}
		ids = append(ids, img.ID())
	}
	slices.Sort(ids)
	return len(slices.Compact(ids)) == 1
}

// find finds what a name or an ID stands for in the list. Choose takes one of
// several, if it can.
func (s *Store) find(
	ctx context.Context, list []v1.Descriptor, nameOrID string, choose func([]v1.Descriptor) (v1.Descriptor, bool),
) (v1.Descriptor, error) {
	ref, err := ParseRef(nameOrID)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if ref.Transport != TransportStore {
		return v1.Descriptor{}, invalid("image %q: it is not a name of the local store", nameOrID)
	}
	for _, d := range list {
		if ref.names(d) {
			return d, nil
		}
	}
	ids := s.withID(ctx, list, nameOrID)
	switch len(ids) {
	case 0:
		return v1.Descriptor{}, notFound("image %q not found in %s", nameOrID, s)
	case 1:
		return ids[0], nil
	}
	if d, ok := choose(ids); ok {
		return d, nil
	}
	var names []string
	for _, d := range ids {
		names = append(names, describe(d))
	}
	return v1.Descriptor{}, invalid("image %q is ambiguous: it could be %s", nameOrID, strings.Join(names, ", "))
}

// names reports whether a reference to the store is to d.
func (r Ref) names(d v1.Descriptor) bool {
	tag := tagOf(d)
	switch {
	case r.Path == "":
		return r.Digest == d.Digest
	case r.Digest != "" && r.Digest != d.Digest:
		return false
	case r.Tag != "":
		return tag == r.Path+":"+r.Tag
	}
	return strings.HasPrefix(tag, r.Path+":")
}

// withID returns what has an ID that begins with those digits, each digest
// once.
func (s *Store) withID(ctx context.Context, list []v1.Descriptor, prefix string) []v1.Descriptor {
	prefix = strings.TrimPrefix(prefix, "sha256:")
	if len(prefix) < minIDPrefix || strings.Trim(prefix, "0123456789abcdef") != "" {
		return nil
	}
	var found []v1.Descriptor
	seen := map[digest.Digest]bool{}
	for _, d := range list {
		if seen[d.Digest] || checkDigest(d.Digest) != nil {
			continue
		}
		seen[d.Digest] = true
		if strings.HasPrefix(d.Digest.Encoded(), prefix) {
			found = append(found, d)
			continue
		}
		img, err := read(ctx, s, d)
		if err == nil && strings.HasPrefix(img.ID().Encoded(), prefix) {
			found = append(found, d)
		}
	}
	return found
}

// Tag gives an image another name. If the name was another image's, that one
// loses it.
func (s *Store) Tag(ctx context.Context, nameOrID, name string) error {
	name, err := NormalName(name)
	if err != nil {
		return err
	}
	return s.update(ctx, func(list []v1.Descriptor) ([]v1.Descriptor, error) {
		d, err := s.lookup(ctx, list, nameOrID)
		if err != nil {
			return nil, err
		}
		d.Annotations = map[string]string{v1.AnnotationRefName: name}
		return giveName(list, d), nil
	})
}

// giveName lists d under its name. An image that had it before stays in the
// list, without a name if it has no other; d no longer needs its nameless
// entry.
func giveName(list []v1.Descriptor, d v1.Descriptor) []v1.Descriptor {
	old := slices.IndexFunc(list, func(o v1.Descriptor) bool { return tagOf(o) == tagOf(d) })
	var lost *v1.Descriptor
	if old >= 0 && list[old].Digest != d.Digest {
		o := list[old]
		o.Annotations = nil
		lost = &o
	}
	list = slices.DeleteFunc(slices.Clone(list), func(o v1.Descriptor) bool {
		return tagOf(o) == tagOf(d) || (tagOf(o) == "" && o.Digest == d.Digest)
	})
	list = append(list, d)
	if lost != nil && !slices.ContainsFunc(list, func(o v1.Descriptor) bool { return o.Digest == lost.Digest }) {
		list = append(list, *lost)
	}
	return list
}

// Removed is what Remove and Prune took away.
type Removed struct {
	Names    []string        // names that are gone
	Images   []digest.Digest // manifests that are gone
	Blobs    []digest.Digest // blobs that are gone
	Temps    int             // temporary files of dead writers
	Bytes    int64           // of blobs and temporary files
	Deferred bool            // blobs were left for a later Prune: somebody is adding images
}

// Remove removes a name, or an image by its ID, and the blobs that no other
// image has. With its last name an image goes. An ID of an image with several
// names is an error of class ErrFailedPrecondition, and one of several
// manifests an error of class ErrInvalidArgument.
func (s *Store) Remove(ctx context.Context, nameOrID string) (Removed, error) {
	var removed Removed
	err := s.update(ctx, func(list []v1.Descriptor) ([]v1.Descriptor, error) {
		d, err := s.find(ctx, list, nameOrID, func([]v1.Descriptor) (v1.Descriptor, bool) { return v1.Descriptor{}, false })
		if err != nil {
			return nil, err
		}
		ref, err := ParseRef(nameOrID)
		if err != nil {
			return nil, err
		}
		same := func(o v1.Descriptor) bool { return o.Digest == d.Digest }
		if !ref.names(d) || ref.Path == "" {
			if err := onlyOneName(list, same, nameOrID); err != nil {
				return nil, err
			}
		}
		list = slices.DeleteFunc(slices.Clone(list), func(o v1.Descriptor) bool { return same(o) && tagOf(o) == tagOf(d) })
		if tagOf(d) != "" {
			removed.Names = append(removed.Names, tagOf(d))
		}
		if !slices.ContainsFunc(list, same) {
			removed.Images = append(removed.Images, d.Digest)
		}
		return list, nil
	})
	if err != nil {
		return Removed{}, fmt.Errorf("remove image: %w", err)
	}
	return removed, s.collect(ctx, &removed)
}

func onlyOneName(list []v1.Descriptor, same func(v1.Descriptor) bool, id string) error {
	var names []string
	for _, d := range list {
		if same(d) && tagOf(d) != "" {
			names = append(names, tagOf(d))
		}
	}
	if len(names) > 1 {
		return classed(errdefs.ErrFailedPrecondition, "image %s has several names: remove them one by one (%s)", id, strings.Join(names, ", "))
	}
	return nil
}

// PruneOptions says what Prune spares.
type PruneOptions struct {
	// Keep lists images by the digest of manifest or configuration, which
	// stay even if they have no name: containers are made from them.
	Keep []digest.Digest
}

// Prune removes images without a name, blobs that no image has, and the
// temporary files of dead writers.
func (s *Store) Prune(ctx context.Context, opts PruneOptions) (Removed, error) {
	var removed Removed
	err := s.update(ctx, func(list []v1.Descriptor) ([]v1.Descriptor, error) {
		return slices.DeleteFunc(slices.Clone(list), func(d v1.Descriptor) bool {
			if tagOf(d) != "" || slices.Contains(opts.Keep, d.Digest) {
				return false
			}
			if img, err := read(ctx, s, d); err == nil && slices.Contains(opts.Keep, img.ID()) {
				return false
			}
			removed.Images = append(removed.Images, d.Digest)
			return true
		}), nil
	})
	if err != nil {
		return Removed{}, fmt.Errorf("prune %s: %w", s, err)
	}
	err = errors.Join(s.collect(ctx, &removed), s.removeTemps(&removed))
	if err != nil {
		return removed, fmt.Errorf("prune %s: %w", s, err)
	}
	return removed, nil
}

// Verify reads every blob of every image and holds it against its digest. The
// error joins one for each that is missing or wrong.
func (s *Store) Verify(ctx context.Context) error {
	index, err := s.Index(ctx)
	if err != nil {
		return err
	}
	var errs []error
	known := map[digest.Digest]*Image{}
	seen := map[digest.Digest]bool{}
	for _, d := range index.Manifests {
		img, err := s.open(ctx, d, known)
		if err != nil {
			errs = append(errs, fmt.Errorf("image %q: %w", describe(d), err))
			continue
		}
		for _, l := range img.Manifest.Layers {
			if seen[l.Digest] {
				continue
			}
			seen[l.Digest] = true
			if err := readBlob(ctx, s, l); err != nil {
				errs = append(errs, fmt.Errorf("image %q: layer: %w", describe(d), err))
			}
		}
	}
	return errors.Join(errs...)
}

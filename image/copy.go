package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Target is a layout or an archive that images are written to. Nothing of
// what is added can be seen before Commit, and blobs are written once however
// many images have them. It is for one goroutine.
type Target interface {
	// Add writes an image's blobs, of src, under a tag; a docker archive
	// wants a name with a tag, and takes an empty one.
	Add(ctx context.Context, src Source, img *Image, tag string) error
	// AddTree writes all that a tree has, of src, under a tag. A docker archive
	// takes none.
	AddTree(ctx context.Context, src Source, tree *Tree, tag string) error
	// Commit publishes all that was added. In a layout the tags replace those
	// of the same name and leave the others; an archive file is replaced.
	Commit(ctx context.Context) error
	// Close discards what was not committed.
	Close() error
}

// Create opens ref's place for writing. A layout is made if it is not there.
// An archive is written beside the file and renamed by Commit; if the path is
// something else than a regular file, like a pipe, it is written straight
// into it. The bytes of an archive depend on the images alone.
func Create(ctx context.Context, ref Ref) (Target, error) {
	var (
		t   Target
		err error
	)
	switch ref.Transport {
	case TransportOCI:
		t, err = createLayout(ctx, ref.Path)
	case TransportOCIArchive, TransportDockerArchive:
		t, err = createArchive(ctx, ref)
	default:
		err = unopened(ref)
	}
	if err != nil {
		return nil, fmt.Errorf("create image %q: %w", ref, err)
	}
	return t, nil
}

// Copy writes one image to ref. Without a tag in ref an OCI archive's is
// "latest", and a docker archive's is the image's own name if it has one.
func Copy(ctx context.Context, src Source, img *Image, ref Ref) error {
	tag := ref.Tag
	switch {
	case tag != "":
	case ref.Transport == TransportDockerArchive:
		if name, nerr := NormalName(img.Name); nerr == nil {
			tag = name
		}
	default:
		tag = defaultTag
	}
	return copyTo(ctx, ref, func(t Target) error { return t.Add(ctx, src, img, tag) })
}

// CopyTree writes a tree to ref, as Copy does with an image.
func CopyTree(ctx context.Context, src Source, tree *Tree, ref Ref) error {
	tag := ref.Tag
	if tag == "" {
		tag = defaultTag
	}
	return copyTo(ctx, ref, func(t Target) error { return t.AddTree(ctx, src, tree, tag) })
}

func copyTo(ctx context.Context, ref Ref, add func(Target) error) (err error) {
	if ref.Digest != "" {
		return invalid("write image %q: a digest cannot be chosen", ref)
	}
	t, err := Create(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if err := add(t); err != nil {
		return fmt.Errorf("write image %q: %w", ref, err)
	}
	if err := t.Commit(ctx); err != nil {
		return fmt.Errorf("write image %q: %w", ref, err)
	}
	return nil
}

// blobs returns an image's blobs in the order in which they are written, each
// once: the layers, the configuration, the manifest.
func (i *Image) blobs() []v1.Descriptor {
	var list []v1.Descriptor
	for _, d := range append(slices.Clone(i.Manifest.Layers), i.Manifest.Config, i.Descriptor) {
		if !slices.ContainsFunc(list, func(o v1.Descriptor) bool { return o.Digest == d.Digest }) {
			list = append(list, d)
		}
	}
	return list
}

// entry returns the descriptor that lists the image under a tag.
func (i *Image) entry(tag string) v1.Descriptor {
	d := v1.Descriptor{MediaType: i.Descriptor.MediaType, Digest: i.Descriptor.Digest, Size: i.Descriptor.Size}
	if p := i.Config.Platform; p.OS != "" || p.Architecture != "" {
		d.Platform = &p
	}
	if tag != "" {
		d.Annotations = map[string]string{v1.AnnotationRefName: tag}
	}
	return d
}

// setTag returns the list with d in it, in the place of what has d's tag.
func setTag(list []v1.Descriptor, d v1.Descriptor) []v1.Descriptor {
	i := slices.IndexFunc(list, func(o v1.Descriptor) bool {
		if tagOf(d) == "" {
			return tagOf(o) == "" && o.Digest == d.Digest
		}
		return tagOf(o) == tagOf(d)
	})
	if i < 0 {
		return append(list, d)
	}
	list = slices.Clone(list)
	list[i] = d
	rest := slices.DeleteFunc(list[i+1:], func(o v1.Descriptor) bool { return tagOf(d) != "" && tagOf(o) == tagOf(d) })
	return list[:i+1+len(rest)]
}

// A layoutTarget is a layout directory that images are added to.
type layoutTarget struct {
	*layout
	added []v1.Descriptor
}

func createLayout(ctx context.Context, dir string) (*layoutTarget, error) {
	l := &layout{dir: dir, what: "layout"}
	if err := l.create(ctx, 0o755); err != nil {
		return nil, err
	}
	if _, err := openLayout(dir); err != nil {
		return nil, err
	}
	return &layoutTarget{layout: l}, nil
}

func (t *layoutTarget) Add(ctx context.Context, src Source, img *Image, tag string) error {
	if err := t.copyBlobs(ctx, src, img.blobs()); err != nil {
		return err
	}
	t.added = append(t.added, img.entry(tag))
	return nil
}

// copiesAtOnce is as many blobs as registries like to send one client at a
// time. On disks it neither helps nor hurts.
const copiesAtOnce = 4

// copyBlobs copies some blobs at a time. The first failure stops the others.
func (t *layoutTarget) copyBlobs(ctx context.Context, src Source, blobs []v1.Descriptor) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, copiesAtOnce)
	var wg sync.WaitGroup
	for _, desc := range blobs {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			open := func() (io.ReadCloser, error) { return openRaw(ctx, src, desc) }
			if err := t.copyBlob(ctx, desc, open, nil); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (t *layoutTarget) AddTree(ctx context.Context, src Source, tree *Tree, tag string) error {
	if err := t.copyBlobs(ctx, src, tree.Blobs()); err != nil {
		return err
	}
	for _, n := range tree.Nodes {
		if err := t.put(ctx, n.Descriptor, n.Raw); err != nil {
			return err
		}
	}
	t.added = append(t.added, tree.entry(tag))
	return nil
}

func (t *layoutTarget) Commit(ctx context.Context) error {
	if err := t.syncBlobs(); err != nil {
		return err
	}
	added := t.added
	t.added = nil
	return t.update(ctx, func(list []v1.Descriptor) ([]v1.Descriptor, error) {
		for _, d := range added {
			list = setTag(list, d)
		}
		return list, nil
	})
}

// Close leaves no directory of ours in a layout that is somebody else's. It
// stays while another writer has files in it.
func (t *layoutTarget) Close() error {
	removeEmpty(t.tempPath(""))
	return nil
}

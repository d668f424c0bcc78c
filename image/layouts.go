package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Layout is an OCI image layout directory whose images can be changed. Tags
// are what index.json has in the annotation org.opencontainers.image.ref.name.
//
// Many goroutines and processes may use a layout at once, under the locks
// that [Store] describes. Other programs that write layouts take no locks;
// what they write meanwhile to index.json is lost or undoes what is written
// here, but blobs are safe from all but [Layout.Collect].
//
// A Layout is a [Source].
type Layout struct {
	layout
}

var _ Source = (*Layout)(nil)

// CreateLayout makes an empty layout. The error is of class ErrAlreadyExists
// if there is anything but an empty directory.
func CreateLayout(ctx context.Context, dir string) (*Layout, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("create layout %s: %w", dir, err)
	}
	if len(entries) > 0 {
		return nil, classed(errdefs.ErrAlreadyExists, "create layout %s: it exists and is not empty", dir)
	}
	l := &Layout{layout{dir: dir, what: "layout"}}
	if err := l.create(ctx, 0o755); err != nil {
		return nil, fmt.Errorf("create layout %s: %w", dir, err)
	}
	removeEmpty(l.tempPath(""))
	return l, nil
}

// OpenLayout opens the layout in a directory. The error is of class
// ErrNotFound if there is none.
func OpenLayout(dir string) (*Layout, error) {
	l, err := openLayout(dir)
	if err != nil {
		return nil, fmt.Errorf("open layout %s: %w", dir, err)
	}
	return &Layout{*l}, nil
}

// Dir returns the layout's directory.
func (l *Layout) Dir() string { return l.dir }

// Tags returns the tags of all images in the order of the layout's list, each
// once.
func (l *Layout) Tags(ctx context.Context) ([]string, error) {
	index, err := l.Index(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var tags []string
	for _, d := range index.Manifests {
		if tag := tagOf(d); tag != "" && !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	return tags, nil
}

// Tag gives what has a tag another one as well: a manifest, an index, or
// whatever it is. What had the new tag loses it.
func (l *Layout) Tag(ctx context.Context, tag, newTag string) error {
	if err := CheckTag(newTag); err != nil {
		return fmt.Errorf("tag image: %w", err)
	}
	err := l.update(ctx, func(list []v1.Descriptor) ([]v1.Descriptor, error) {
		found, err := tagged(list, tag, l.String())
		if err != nil || tag == newTag {
			return list, err
		}
		for i, d := range found {
			d.Annotations = withTag(d.Annotations, newTag)
			found[i] = d
		}
		return append(without(list, newTag), found...), nil
	})
	if err != nil {
		return fmt.Errorf("tag image: %w", err)
	}
	return nil
}

// Remove removes a tag. The blobs stay until [Layout.Collect].
func (l *Layout) Remove(ctx context.Context, tag string) error {
	err := l.update(ctx, func(list []v1.Descriptor) ([]v1.Descriptor, error) {
		if _, err := tagged(list, tag, l.String()); err != nil {
			return nil, err
		}
		return without(list, tag), nil
	})
	if err != nil {
		return fmt.Errorf("remove image: %w", err)
	}
	return nil
}

func tagged(list []v1.Descriptor, tag, where string) ([]v1.Descriptor, error) {
	found := slices.DeleteFunc(slices.Clone(list), func(d v1.Descriptor) bool { return tagOf(d) != tag })
	if tag == "" || len(found) == 0 {
		return nil, notFound("tag %q not found in %s (it has: %s)", tag, where, tags(list))
	}
	return found, nil
}

func without(list []v1.Descriptor, tag string) []v1.Descriptor {
	return slices.DeleteFunc(slices.Clone(list), func(d v1.Descriptor) bool { return tagOf(d) == tag })
}

func withTag(annotations map[string]string, tag string) map[string]string {
	with := map[string]string{v1.AnnotationRefName: tag}
	for k, v := range annotations {
		// containerd's full name was the other tag's.
		if k != v1.AnnotationRefName && k != annotationName {
			with[k] = v
		}
	}
	return with
}

// CheckTag returns an error of class errdefs.ErrInvalidArgument unless an image in a layout can have the tag.
func CheckTag(tag string) error {
	if !validRefName(tag) {
		return invalid("tag %q is malformed", tag)
	}
	return nil
}

// New makes an image without layers and gives it a tag. What config does not
// say is filled in: this machine's platform, and the current time. What had
// the tag loses it.
func (l *Layout) New(ctx context.Context, tag string, config v1.Image) (*Image, error) {
	if config.Created == nil {
		now := time.Now().UTC()
		config.Created = &now
	}
	base, err := emptyImage(config)
	if err != nil {
		return nil, err
	}
	e, err := l.Edit(ctx, base)
	if err != nil {
		return nil, fmt.Errorf("create image %q: %w", tag, err)
	}
	defer e.Close()
	img, err := e.Commit(ctx, tag)
	if err != nil {
		return nil, fmt.Errorf("create image %q: %w", tag, err)
	}
	return img, nil
}

// emptyImage returns an image that is nowhere stored and has no layers.
func emptyImage(config v1.Image) (*Image, error) {
	if config.OS == "" {
		config.OS = HostPlatform().OS
	}
	if config.Architecture == "" {
		config.Architecture = HostPlatform().Architecture
	}
	config.RootFS = v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	config.History = nil
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode config: %w", err)
	}
	base := &Image{Config: config, RawConfig: raw}
	base.Manifest = v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: v1.Descriptor{MediaType: v1.MediaTypeImageConfig}}
	base.Manifest.SchemaVersion = 2
	return base, nil
}

// Collect removes the blobs that no image has, and temporary files of dead
// writers, umoci's among them. While somebody adds blobs they are left.
func (l *Layout) Collect(ctx context.Context) (Removed, error) {
	var removed Removed
	err := errors.Join(l.collect(ctx, &removed), l.removeTemps(&removed), l.removeUmociTemps(&removed))
	removeEmpty(l.tempPath(""))
	if err != nil {
		return removed, fmt.Errorf("collect garbage of %s: %w", l, err)
	}
	return removed, nil
}

// removeUmociTemps removes what umoci wrote and did not finish. Its running
// processes hold locks on their directories of temporary files
// (https://github.com/opencontainers/umoci, oci/cas/dir).
func (l *Layout) removeUmociTemps(removed *Removed) error {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), ".umoci-") {
			continue
		}
		path := filepath.Join(l.dir, e.Name())
		f, err := openNoFollow(path)
		if err != nil {
			continue // it is gone, or a link
		}
		if tryLock(f, lockExclusive) == nil {
			errs = append(errs, os.RemoveAll(path))
			removed.Temps++
		}
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Verify reads every blob of an image and holds it against its digest, and
// every layer's content against its diffID. The error joins one for each that
// is missing or wrong.
func Verify(ctx context.Context, src Source, img *Image) error {
	var errs []error
	for i, desc := range img.Manifest.Layers {
		if err := verifyLayer(ctx, src, desc, img.DiffIDs()[i]); err != nil {
			errs = append(errs, fmt.Errorf("layer %d: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// At reads the image that a path of descriptors leads to, as an Image's Path
// has it: from what index.json lists, or once listed, to a manifest.
func (l *Layout) At(ctx context.Context, path []v1.Descriptor) (*Image, error) {
	if len(path) == 0 {
		return nil, invalid("the path to the image is empty")
	}
	img, err := read(ctx, l, path[len(path)-1])
	if err != nil {
		return nil, err
	}
	img.Path = slices.Clone(path)
	img.Name = tagOf(path[0])
	return img, nil
}

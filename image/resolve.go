package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxDepth   = 32   // indexes within indexes
	maxIndexes = 1024 // indexes read for one image
)

// Limits bound what finding one image may cost. A zero field means its
// default.
type Limits struct {
	Depth   int // indexes within indexes; default 32
	Indexes int // indexes read, and manifests for their platform; default 1024
}

func (l Limits) withDefaults() Limits {
	return Limits{Depth: cmp.Or(l.Depth, maxDepth), Indexes: cmp.Or(l.Indexes, maxIndexes)}
}

// annotationName is where containerd, and docker with it, keep an image's
// full name in a layout.
const annotationName = "io.containerd.image.name"

// An Image is one image for one platform: its manifest and configuration,
// checked. Layers are read from the source or the store that it came from.
type Image struct {
	Name       string        // as the source has it: a tag, or a full name in the store; may be empty
	Descriptor v1.Descriptor // of the manifest
	Manifest   v1.Manifest
	Config     v1.Image

	RawManifest []byte // the bytes that the digests are of
	RawConfig   []byte

	// Path leads from the source's own list to the manifest: the descriptors
	// of the indexes on the way, if any, and Descriptor. Nil where an image was
	// not found by Resolve.
	Path []v1.Descriptor
}

// ID returns the digest of the image's configuration, which docker calls the
// image's ID.
func (i *Image) ID() digest.Digest { return i.Manifest.Config.Digest }

// DiffIDs returns the digests of the uncompressed layers, the lowest first.
// There are as many as the manifest has layers.
func (i *Image) DiffIDs() []digest.Digest { return i.Config.RootFS.DiffIDs }

// Size returns the bytes of all of the image's blobs.
func (i *Image) Size() int64 {
	size := i.Descriptor.Size + i.Manifest.Config.Size
	for _, l := range i.Manifest.Layers {
		size += l.Size
	}
	return size
}

// Platform returns what the configuration says that the image is for.
func (i *Image) Platform() v1.Platform { return i.Config.Platform }

// Resolve finds an image in a source. The selector is a tag (for a docker
// archive or the store a name with a tag), "@" and a digest, or empty for the
// only image there is. Indexes are followed to the manifest that suits the
// platform best; the zero platform means this machine's, and then a tag that
// leads to a manifest without an index is taken whatever it is for.
//
// Errors: ErrNotFound if there is no such image, ErrDataLoss if content does
// not match its descriptor, ErrInvalidArgument if a document is malformed,
// too large, ambiguous, or of an unknown media type.
func Resolve(ctx context.Context, src Source, selector string, platform v1.Platform) (*Image, error) {
	return ResolveWithin(ctx, src, selector, platform, Limits{})
}

// ResolveWithin is Resolve with limits of the caller's. What exceeds one is an
// error of class ErrInvalidArgument.
func ResolveWithin(ctx context.Context, src Source, selector string, platform v1.Platform, limits Limits) (*Image, error) {
	index, err := src.Index(ctx)
	if err != nil {
		return nil, err
	}
	roots, err := choose(index.Manifests, selector, src.String())
	if err != nil {
		return nil, err
	}
	w := walker{src: src, want: platform, limits: limits.withDefaults(), strict: true, seen: map[digest.Digest]bool{}}
	if platform.OS == "" && platform.Architecture == "" {
		w.want = HostPlatform()
		w.strict = false
	}
	path, err := w.pick(ctx, roots)
	if err != nil {
		return nil, err
	}
	desc := path[len(path)-1]
	img, err := read(ctx, src, desc)
	if err != nil {
		return nil, err
	}
	img.Path = path
	img.Name = desc.Annotations[v1.AnnotationRefName]
	if img.Name == "" {
		img.Name = roots[0].Annotations[v1.AnnotationRefName]
	}
	return img, nil
}

// choose returns the top-level descriptors that the selector names.
func choose(all []v1.Descriptor, selector, where string) ([]v1.Descriptor, error) {
	var found []v1.Descriptor
	switch {
	case strings.HasPrefix(selector, "@"):
		found = slices.DeleteFunc(slices.Clone(all), func(d v1.Descriptor) bool { return "@"+string(d.Digest) != selector })
		if len(found) > 1 {
			found = found[:1]
		}
	case selector == "":
		found = onlyImage(all)
	default:
		found = slices.DeleteFunc(slices.Clone(all), func(d v1.Descriptor) bool { return !named(d, selector) })
	}
	switch {
	case len(found) > 0:
		return found, nil
	case len(all) == 0:
		return nil, notFound("%s has no images", where)
	case selector == "":
		return nil, invalid("%s has several images: name one (it has: %s)", where, tags(all))
	case strings.HasPrefix(selector, "@"):
		return nil, notFound("manifest %s not found in %s", selector[1:], where)
	}
	return nil, notFound("tag %q not found in %s (it has: %s)", selector, where, tags(all))
}

// onlyImage returns the descriptors of the one image that all has, under
// whatever names, or none.
func onlyImage(all []v1.Descriptor) []v1.Descriptor {
	for _, d := range all {
		if d.Digest != all[0].Digest && (tagOf(d) != tagOf(all[0]) || tagOf(d) == "") {
			return nil
		}
	}
	return all
}

func tagOf(d v1.Descriptor) string { return d.Annotations[v1.AnnotationRefName] }

func named(d v1.Descriptor, selector string) bool {
	if tagOf(d) == selector {
		return true
	}
	want, err := NormalName(selector)
	if err != nil {
		return false
	}
	for _, name := range []string{d.Annotations[annotationName], tagOf(d)} {
		if got, err := NormalName(name); err == nil && got == want && strings.ContainsAny(name, "/:") {
			return true
		}
	}
	return false
}

// tags lists what could have been named, for a message.
func tags(all []v1.Descriptor) string {
	const most = 12
	var list []string
	for _, d := range all {
		tag := tagOf(d)
		if tag == "" {
			tag = "@" + string(d.Digest)
		}
		list = append(list, tag)
	}
	slices.Sort(list)
	list = slices.Compact(list)
	if more := len(list) - most; more > 0 {
		list = append(list[:most], fmt.Sprintf("and %d more", more))
	}
	for i, tag := range list {
		if strings.ContainsFunc(tag, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			list[i] = fmt.Sprintf("%q", tag)
		}
	}
	return strings.Join(list, ", ")
}

// A walker goes through indexes to the manifests in them.
type walker struct {
	src    Source
	want   v1.Platform
	limits Limits
	strict bool // a manifest outside an index must suit, too
	seen   map[digest.Digest]bool
	read   int
	found  []candidate
}

type candidate struct {
	desc v1.Descriptor
	path []v1.Descriptor // the indexes above it
}

// pick returns the path to the manifest below roots that suits best, the
// first of equals.
func (w *walker) pick(ctx context.Context, roots []v1.Descriptor) ([]v1.Descriptor, error) {
	for _, root := range roots {
		if err := w.walk(ctx, root, nil); err != nil {
			return nil, err
		}
	}
	if len(w.found) == 1 && len(w.found[0].path) == 0 && !w.strict {
		return []v1.Descriptor{w.found[0].desc}, nil
	}
	best, bestFit := candidate{}, 0
	var platforms []string
	for _, c := range w.found {
		p, err := w.platform(ctx, c.desc)
		if errors.Is(err, errNoImage) && len(c.path) > 0 {
			continue // an index may list signatures and the like
		}
		if err != nil {
			return nil, err
		}
		platforms = append(platforms, platformString(p))
		f := fit(p, w.want)
		if f == bestFit && f > 0 && len(c.path) == 0 {
			return nil, invalid("tag %q is ambiguous: manifests %s and %s are both for %s", tagOf(c.desc), best.desc.Digest, c.desc.Digest, platformString(p))
		}
		if f > bestFit {
			best, bestFit = c, f
		}
	}
	if bestFit == 0 {
		return nil, notFound("no image for %s (there are: %s)", platformString(w.want), strings.Join(slices.Compact(platforms), ", "))
	}
	return append(slices.Clip(best.path), best.desc), nil
}

// walk collects the manifests below desc. Each digest is visited once, so
// that indexes that name the same child many times cost no more than one.
func (w *walker) walk(ctx context.Context, desc v1.Descriptor, path []v1.Descriptor) error {
	if err := checkDescriptor(desc); err != nil {
		return err
	}
	if w.seen[desc.Digest] {
		return nil
	}
	w.seen[desc.Digest] = true
	switch {
	case isManifest(desc.MediaType):
		w.found = append(w.found, candidate{desc, path})
		return nil
	case !isIndex(desc.MediaType) && len(path) > 0:
		return nil // an index may list other things than images
	case !isIndex(desc.MediaType):
		return invalid("blob %s has the unknown media type %q", desc.Digest, desc.MediaType)
	}
	if len(path) == w.limits.Depth {
		return invalid("index %s is more than %d indexes deep", desc.Digest, w.limits.Depth)
	}
	if w.read++; w.read > w.limits.Indexes {
		return invalid("index %s is one of more than %d", desc.Digest, w.limits.Indexes)
	}
	raw, err := fetch(ctx, w.src, desc)
	if err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	index, err := parseIndex(raw, desc.MediaType)
	if err != nil {
		return fmt.Errorf("read index %s: %w", desc.Digest, err)
	}
	path = append(slices.Clip(path), desc)
	for _, child := range index.Manifests {
		if err := w.walk(ctx, child, path); err != nil {
			return err
		}
	}
	return nil
}

// platform returns what a manifest is for: its descriptor says, else its
// configuration.
func (w *walker) platform(ctx context.Context, desc v1.Descriptor) (v1.Platform, error) {
	if desc.Platform != nil && desc.Platform.OS != "" {
		return *desc.Platform, nil
	}
	if w.read++; w.read > w.limits.Indexes {
		return v1.Platform{}, invalid("manifest %s is one of more than %d without a platform", desc.Digest, w.limits.Indexes)
	}
	img, err := read(ctx, w.src, desc)
	if err != nil {
		return v1.Platform{}, err
	}
	return img.Config.Platform, nil
}

// read reads the manifest that desc describes, and its configuration.
func read(ctx context.Context, src Source, desc v1.Descriptor) (*Image, error) {
	if !isManifest(desc.MediaType) {
		return nil, invalid("blob %s has media type %q, which is not that of a manifest", desc.Digest, desc.MediaType)
	}
	raw, err := fetch(ctx, src, desc)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return readAs(ctx, src, desc, raw)
}

// readAs is read of a manifest whose bytes are there already.
func readAs(ctx context.Context, src Source, desc v1.Descriptor, raw []byte) (*Image, error) {
	img := &Image{Descriptor: desc, RawManifest: raw}
	var err error
	if img.Manifest, err = parseManifest(img.RawManifest, desc.MediaType); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", desc.Digest, err)
	}
	if err := img.readConfig(ctx, src); err != nil {
		return nil, err
	}
	return img, nil
}

// readConfig reads the configuration that the manifest names.
func (i *Image) readConfig(ctx context.Context, src Source) error {
	var err error
	if i.RawConfig, err = fetch(ctx, src, i.Manifest.Config); err != nil {
		return fmt.Errorf("read config of manifest %s: %w", i.Descriptor.Digest, err)
	}
	if i.Config, err = parseConfig(i.RawConfig, i.Manifest); err != nil {
		return fmt.Errorf("read config %s: %w", i.Manifest.Config.Digest, err)
	}
	return nil
}

// FromManifest returns the image that a manifest describes which somebody has
// decoded already: the manifest is judged as any, and the configuration read
// from the source. The image's raw manifest is an encoding of it.
func FromManifest(ctx context.Context, src Source, m v1.Manifest) (*Image, error) {
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	img := &Image{RawManifest: raw}
	img.Descriptor = v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if img.Manifest, err = parseManifest(raw, m.MediaType); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if err := img.readConfig(ctx, src); err != nil {
		return nil, err
	}
	return img, nil
}

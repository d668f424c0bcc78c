package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxNodes     = 4096     // manifests and indexes of one tree
	maxNodeBytes = 64 << 20 // of all of them: they are kept in memory
)

// A Tree is all that one tag leads to: a manifest, or an index with the
// images for every platform and whatever else it lists.
type Tree struct {
	// Nodes are the manifests and indexes, each once, and each after those that
	// it lists. The last is what the tag stands for.
	Nodes []Node
}

// A Node is a manifest or an index.
type Node struct {
	Descriptor v1.Descriptor
	Raw        []byte // the bytes that the digest is of
	// Blobs are what the node lists beside manifests and indexes: layers first,
	// then the configuration.
	Blobs []v1.Descriptor
}

// Root returns what the tag stands for.
func (t *Tree) Root() Node { return t.Nodes[len(t.Nodes)-1] }

// Blobs returns what all nodes list, each blob once.
func (t *Tree) Blobs() []v1.Descriptor {
	var list []v1.Descriptor
	seen := map[digest.Digest]bool{}
	for _, n := range t.Nodes {
		for _, d := range n.Blobs {
			if !seen[d.Digest] {
				seen[d.Digest] = true
				list = append(list, d)
			}
		}
	}
	return list
}

// Size returns the bytes of all that the tree has.
func (t *Tree) Size() int64 {
	var size int64
	for _, n := range t.Nodes {
		size += n.Descriptor.Size
	}
	for _, d := range t.Blobs() {
		size += d.Size
	}
	return size
}

// ReadTree reads the manifests and indexes that a selector leads to, as
// Resolve understands selectors, for all platforms. A manifest in it need not
// be that of an image: registries keep signatures and attestations beside
// images. Errors are those of Resolve.
func ReadTree(ctx context.Context, src Source, selector string) (*Tree, error) {
	index, err := src.Index(ctx)
	if err != nil {
		return nil, err
	}
	roots, err := choose(index.Manifests, selector, src.String())
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(roots, func(d v1.Descriptor) bool { return d.Digest != roots[0].Digest }) {
		return nil, invalid("tag %q stands for several manifests: name one by its digest", tagOf(roots[0]))
	}
	g := gatherer{src: src, seen: map[digest.Digest]bool{}}
	if err := g.gather(ctx, roots[0], 0); err != nil {
		return nil, err
	}
	return &g.tree, nil
}

// A gatherer makes a tree.
type gatherer struct {
	src   Source
	tree  Tree
	seen  map[digest.Digest]bool
	bytes int64
}

func (g *gatherer) gather(ctx context.Context, desc v1.Descriptor, depth int) error {
	switch {
	case g.seen[desc.Digest]:
		return nil
	case depth > maxDepth:
		return invalid("index %s is more than %d indexes deep", desc.Digest, maxDepth)
	case len(g.seen) == maxNodes:
		return invalid("manifest %s is one of more than %d", desc.Digest, maxNodes)
	}
	g.seen[desc.Digest] = true
	if err := checkDescriptor(desc); err != nil {
		return err
	}
	if g.bytes += desc.Size; g.bytes > maxNodeBytes {
		return invalid("manifest %s is one of several with more than %d bytes", desc.Digest, maxNodeBytes)
	}
	raw, err := fetch(ctx, g.src, desc)
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	listed, err := listedBy(raw, desc.MediaType)
	if err != nil {
		return fmt.Errorf("read manifest %s: %w", desc.Digest, err)
	}
	node := Node{Descriptor: v1.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}, Raw: raw}
	for _, d := range listed {
		if !IsManifest(d) {
			node.Blobs = append(node.Blobs, d)
			continue
		}
		if err := g.gather(ctx, d, depth+1); err != nil {
			return err
		}
	}
	g.tree.Nodes = append(g.tree.Nodes, node)
	return nil
}

// listedBy returns what a manifest or an index lists, checked.
func listedBy(raw []byte, mediaType string) ([]v1.Descriptor, error) {
	var listed []v1.Descriptor
	switch {
	case isIndex(mediaType):
		index, err := parseIndex(raw, mediaType)
		if err != nil {
			return nil, err
		}
		listed = index.Manifests
	case isManifest(mediaType):
		m, err := parseAnyManifest(raw, mediaType)
		if err != nil {
			return nil, err
		}
		listed = append(slices.Clip(m.Layers), m.Config)
	default:
		return nil, invalid("it has the unknown media type %q", mediaType)
	}
	for i, d := range listed {
		if err := checkDescriptor(d); err != nil {
			return nil, invalid("its descriptor %d: %w", i, err)
		}
	}
	return listed, nil
}

// Verify reads every blob of the tree and holds it against its digest, and
// every layer's content against its diffID where a manifest is that of an
// image. The error joins one for each that is missing or wrong.
func (t *Tree) Verify(ctx context.Context, src Source) error {
	var errs []error
	done := map[digest.Digest]bool{} // blobs, as images of several platforms have some in common
	for _, n := range t.Nodes {
		for _, err := range n.verify(ctx, src, done) {
			errs = append(errs, fmt.Errorf("manifest %s: %w", n.Descriptor.Digest, err))
		}
	}
	return errors.Join(errs...)
}

// isImage reports whether the node is an image's manifest: signatures and
// attestations have a configuration, too.
func (n Node) isImage() bool {
	last := len(n.Blobs) - 1
	return last >= 0 && isConfig(n.Blobs[last].MediaType) &&
		!slices.ContainsFunc(n.Blobs[:last], func(d v1.Descriptor) bool { return !isLayer(d.MediaType) })
}

func (n Node) verify(ctx context.Context, src Source, done map[digest.Digest]bool) []error {
	var (
		errs    []error
		diffIDs []digest.Digest
	)
	if n.isImage() {
		img, err := readAs(ctx, src, n.Descriptor, n.Raw)
		if err != nil {
			return []error{err}
		}
		diffIDs = img.DiffIDs()
	}
	for i, d := range n.Blobs {
		var key, diffID digest.Digest = d.Digest, ""
		if i < len(diffIDs) {
			diffID = diffIDs[i]
			key += "=" + diffID
		}
		if done[key] {
			continue
		}
		done[key] = true
		var err error
		if diffID == "" {
			err = readBlob(ctx, src, d)
		} else {
			err = verifyLayer(ctx, src, d, diffID)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("blob %s: %w", d.Digest, err))
		}
	}
	return errs
}

// readBlob reads a blob to its end, which every source checks.
func readBlob(ctx context.Context, src Source, desc v1.Descriptor) error {
	blob, err := src.Blob(ctx, desc)
	if err != nil {
		return err
	}
	defer blob.Close()
	return copyContext(ctx, io.Discard, blob, nil)
}

// entry returns the descriptor that lists the tree under a tag.
func (t *Tree) entry(tag string) v1.Descriptor {
	d := t.Root().Descriptor
	if tag != "" {
		d.Annotations = map[string]string{v1.AnnotationRefName: tag}
	}
	return d
}

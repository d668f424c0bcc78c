package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	dockerManifestFile = "manifest.json"
	maxDockerImages    = 4096
	maxDockerLayers    = 4096
)

// dockerImage is one image of a docker archive's manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// A dockerArchive is what "docker save" writes: manifest.json leads to
// configurations and layers by their names in the archive. Newer ones are an
// OCI layout at the same time; then an image keeps its own manifest, else it
// is given one.
type dockerArchive struct {
	*archive
	manifests []v1.Descriptor
	blobs     map[digest.Digest]string // names in the archive
	made      map[digest.Digest][]byte // manifests that the archive has not
	layers    map[string]v1.Descriptor // by name in the archive
}

func openDockerArchive(ctx context.Context, name string) (*dockerArchive, error) {
	a, err := openArchive(ctx, name, "docker archive")
	if err != nil {
		return nil, err
	}
	d := &dockerArchive{
		archive: a,
		blobs:   map[digest.Digest]string{},
		made:    map[digest.Digest][]byte{},
		layers:  map[string]v1.Descriptor{},
	}
	if err := d.load(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return d, nil
}

func (d *dockerArchive) load(ctx context.Context) error {
	raw, err := d.document(dockerManifestFile)
	if err != nil {
		return err
	}
	var images []dockerImage
	if err := json.Unmarshal(raw, &images); err != nil {
		return fmt.Errorf("read %s of %s: %w", dockerManifestFile, d, badJSON(err))
	}
	if len(images) > maxDockerImages {
		return invalid("read %s of %s: it has more than %d images", dockerManifestFile, d, maxDockerImages)
	}
	own := d.ownManifests()
	for _, img := range images {
		if err := d.add(ctx, img, own); err != nil {
			return fmt.Errorf("read image %q of %s: %w", img.RepoTags, d, err)
		}
	}
	return nil
}

// ownManifests returns the archive's OCI manifests by the configuration that
// they lead to. An archive that is no proper layout has none: manifest.json
// is what counts.
func (d *dockerArchive) ownManifests() map[digest.Digest]v1.Descriptor {
	own := map[digest.Digest]v1.Descriptor{}
	raw, err := d.document(v1.ImageIndexFile)
	if err != nil {
		return own
	}
	index, err := parseIndex(raw, "")
	if err != nil {
		return own
	}
	for _, desc := range index.Manifests {
		if !isManifest(desc.MediaType) || checkDescriptor(desc) != nil {
			continue
		}
		name := blobName(desc.Digest)
		raw, err := d.document(name)
		if err != nil || digest.FromBytes(raw) != desc.Digest {
			continue
		}
		m, err := parseManifest(raw, desc.MediaType)
		if err != nil {
			continue
		}
		d.blobs[desc.Digest] = name
		own[m.Config.Digest] = desc
	}
	return own
}

func (d *dockerArchive) add(ctx context.Context, img dockerImage, own map[digest.Digest]v1.Descriptor) error {
	raw, err := d.document(img.Config)
	if err != nil {
		return err
	}
	if len(img.Layers) > maxDockerLayers {
		return invalid("it has more than %d layers", maxDockerLayers)
	}
	var diffs struct {
		v1.Platform
		RootFS v1.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(raw, &diffs); err != nil {
		return fmt.Errorf("read config %s: %w", img.Config, badJSON(err))
	}
	if ids := diffs.RootFS.DiffIDs; len(ids) != len(img.Layers) {
		return invalid("config %s has %d diffIDs, but %s has %d layers", img.Config, len(ids), dockerManifestFile, len(img.Layers))
	}
	config := v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	d.blobs[config.Digest] = img.Config
	desc, found := own[config.Digest]
	if !found || !d.keep(desc) {
		desc, err = d.make(ctx, config, img, diffs.RootFS.DiffIDs)
		if err != nil {
			return err
		}
	}
	desc.Platform = &diffs.Platform
	d.name(desc, img.RepoTags)
	return nil
}

// name lists an image once for each of its names, or once without.
func (d *dockerArchive) name(desc v1.Descriptor, names []string) {
	desc.Annotations = nil
	if len(names) == 0 {
		d.manifests = append(d.manifests, desc)
	}
	for _, name := range names {
		if normal, err := NormalName(name); err == nil {
			name = normal
		}
		desc.Annotations = map[string]string{v1.AnnotationRefName: name}
		d.manifests = append(d.manifests, desc)
	}
}

// keep takes in an image that has its own manifest, if its layers lie where a
// layout has them.
func (d *dockerArchive) keep(desc v1.Descriptor) bool {
	raw, err := d.document(d.blobs[desc.Digest])
	if err != nil {
		return false
	}
	m, err := parseManifest(raw, desc.MediaType)
	if err != nil {
		return false
	}
	for _, l := range m.Layers {
		name := blobName(l.Digest)
		if r, ok := d.find(name); !ok || r.Size() != l.Size {
			return false
		}
		d.blobs[l.Digest] = name
	}
	return true
}

// make gives an image a manifest.
func (d *dockerArchive) make(ctx context.Context, config v1.Descriptor, img dockerImage, diffIDs []digest.Digest) (v1.Descriptor, error) {
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: config, Layers: []v1.Descriptor{}}
	m.SchemaVersion = 2
	for i, name := range img.Layers {
		l, err := d.layer(ctx, name, diffIDs[i])
		if err != nil {
			return v1.Descriptor{}, fmt.Errorf("layer %d, %s: %w", i, name, err)
		}
		m.Layers = append(m.Layers, l)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return v1.Descriptor{}, err
	}
	desc := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	d.made[desc.Digest] = raw
	return desc, nil
}

// layer describes a layer. A plain one has its diffID as digest, as the
// configuration says and reading it will prove; a compressed one has to be
// read for its digest.
func (d *dockerArchive) layer(ctx context.Context, name string, diffID digest.Digest) (v1.Descriptor, error) {
	if err := checkDigest(diffID); err != nil {
		return v1.Descriptor{}, err
	}
	r, ok := d.find(name)
	if !ok {
		return v1.Descriptor{}, notFound("%s has no %s", d, name)
	}
	var magic [4]byte
	n, err := r.ReadAt(magic[:], 0)
	if err != nil && err != io.EOF {
		return v1.Descriptor{}, err
	}
	suffix := sniff(magic[:n])
	desc := v1.Descriptor{MediaType: v1.MediaTypeImageLayer + suffix, Digest: diffID, Size: r.Size()}
	if suffix != "" {
		if known, ok := d.layers[name]; ok {
			return known, nil
		}
		hash := digest.Canonical.Digester()
		if err := copyContext(ctx, hash.Hash(), r, nil); err != nil {
			return v1.Descriptor{}, err
		}
		desc.Digest = hash.Digest()
		d.layers[name] = desc
	}
	d.blobs[desc.Digest] = name
	return desc, nil
}

func (d *dockerArchive) Index(context.Context) (v1.Index, error) {
	return newIndex(d.manifests), nil
}

func (d *dockerArchive) Blob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return openVerified(ctx, d, desc)
}

func (d *dockerArchive) rawBlob(_ context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	if raw, ok := d.made[desc.Digest]; ok {
		if err := checkSize(desc, int64(len(raw))); err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(raw)), nil
	}
	name, ok := d.blobs[desc.Digest]
	if !ok {
		return nil, notFound("blob %s not found in %s", desc.Digest, d)
	}
	return d.blob(name, desc)
}

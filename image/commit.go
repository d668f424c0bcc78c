package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/layer"
)

// A Change is one step from an image to the next. Without a layer it changes
// the configuration alone.
type Change struct {
	// Layer is a layer's blob, a tar archive or a compressed one; it is
	// stored as it is. It may be nil.
	Layer io.Reader
	// WriteLayer, if Layer is nil, writes that blob.
	WriteLayer func(w io.Writer) error
	// History describes the step. A zero Created becomes the current time;
	// EmptyLayer is set as it has to be.
	History v1.History
	// Edit, if not nil, changes the configuration.
	Edit func(*v1.Image)
}

// Commit makes an image from base and one change, and gives it a name, if
// name is not empty. What base's configuration holds that this package does
// not know is kept.
func (s *Store) Commit(ctx context.Context, base *Image, name string, change Change) (*Image, error) {
	img, err := s.build(ctx, base, name, []Change{change})
	if err != nil {
		return nil, fmt.Errorf("commit image %q: %w", name, err)
	}
	return img, nil
}

// Build makes an image from nothing by a number of changes. The platform is
// this machine's where config does not say.
func (s *Store) Build(ctx context.Context, name string, config v1.Image, changes ...Change) (*Image, error) {
	base, err := emptyImage(config)
	if err != nil {
		return nil, err
	}
	img, err := s.build(ctx, base, name, changes)
	if err != nil {
		return nil, fmt.Errorf("build image %q: %w", name, err)
	}
	return img, nil
}

func (s *Store) build(ctx context.Context, base *Image, name string, changes []Change) (*Image, error) {
	img, err := s.apply(ctx, base, name, changes)
	if err != nil {
		var removed Removed
		return nil, errors.Join(err, s.collect(context.WithoutCancel(ctx), &removed))
	}
	return img, nil
}

func (s *Store) apply(ctx context.Context, base *Image, name string, changes []Change) (*Image, error) {
	if name != "" {
		var err error
		if name, err = NormalName(name); err != nil {
			return nil, err
		}
	}
	hold, err := s.hold(ctx)
	if err != nil {
		return nil, err
	}
	defer hold.Close()
	img := base.clone()
	for _, l := range img.Manifest.Layers {
		if !s.has(l) {
			return nil, notFound("layer %s of image %q not found in %s", l.Digest, base.Name, s)
		}
	}
	for i, c := range changes {
		if err := s.change(ctx, img, c); err != nil {
			return nil, fmt.Errorf("change %d: %w", i, err)
		}
	}
	if err := img.encode(); err != nil {
		return nil, err
	}
	return s.finish(ctx, img, name)
}

// clone copies what change changes.
func (i *Image) clone() *Image {
	c := *i
	c.Manifest.Layers = slices.Clone(i.Manifest.Layers)
	c.Manifest.Annotations = maps.Clone(i.Manifest.Annotations)
	c.Config.History = slices.Clone(i.Config.History)
	c.Config.RootFS.DiffIDs = slices.Clone(i.Config.RootFS.DiffIDs)
	cfg := &c.Config.Config
	cfg.Env, cfg.Cmd, cfg.Entrypoint = slices.Clone(cfg.Env), slices.Clone(cfg.Cmd), slices.Clone(cfg.Entrypoint)
	cfg.Labels, cfg.Volumes, cfg.ExposedPorts = maps.Clone(cfg.Labels), maps.Clone(cfg.Volumes), maps.Clone(cfg.ExposedPorts)
	return &c
}

func (s *Store) change(ctx context.Context, img *Image, c Change) error {
	created := time.Now().UTC()
	if c.History.Created != nil && !c.History.Created.IsZero() {
		created = c.History.Created.UTC()
	}
	c.History.Created = &created
	c.History.EmptyLayer = c.Layer == nil && c.WriteLayer == nil
	if !c.History.EmptyLayer {
		desc, diffID, err := s.storeLayer(ctx, c)
		if err != nil {
			return fmt.Errorf("store layer: %w", err)
		}
		if img.Manifest.MediaType == dockerManifest {
			desc.MediaType = dockerLayer + sniffedSuffix(desc.MediaType)
		}
		img.Manifest.Layers = append(img.Manifest.Layers, desc)
		img.Config.RootFS.DiffIDs = append(img.Config.RootFS.DiffIDs, diffID)
	}
	if c.Edit != nil {
		diffs := img.Config.RootFS
		c.Edit(&img.Config)
		img.Config.RootFS = diffs
	}
	img.Config.Created = &created
	img.Config.History = append(img.Config.History, c.History)
	return nil
}

// sniffedSuffix turns the image specification's suffix into docker's.
func sniffedSuffix(mediaType string) string {
	switch mediaType {
	case v1.MediaTypeImageLayerGzip:
		return ".gzip"
	case v1.MediaTypeImageLayerZstd:
		return ".zstd"
	}
	return ""
}

// storeLayer stores a blob while its digests are made.
func (s *Store) storeLayer(ctx context.Context, c Change) (v1.Descriptor, digest.Digest, error) {
	f, err := s.newTemp(ctx)
	if err != nil {
		return v1.Descriptor{}, "", err
	}
	d, err := digestLayer(ctx, f, c)
	if err != nil {
		return v1.Descriptor{}, "", errors.Join(err, discard(f))
	}
	desc := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: d.Blob, Size: d.Size}
	switch d.Compression {
	case layer.Gzip:
		desc.MediaType = v1.MediaTypeImageLayerGzip
	case layer.Zstd:
		desc.MediaType = v1.MediaTypeImageLayerZstd
	}
	if s.has(desc) {
		return desc, d.DiffID, discard(f)
	}
	return desc, d.DiffID, s.publish(f, d.Blob)
}

// digestLayer copies a change's layer to f, and digests what passes.
func digestLayer(ctx context.Context, f *os.File, c Change) (layer.Digests, error) {
	r := c.Layer
	if r == nil {
		pr, pw := io.Pipe()
		defer pr.Close()
		go func() { _ = pw.CloseWithError(c.WriteLayer(pw)) }()
		r = pr
	}
	blob, err := layer.OpenBlob(io.TeeReader(&contextReader{ctx, r}, f), layer.Limits{})
	if err != nil {
		return layer.Digests{}, err
	}
	return blob.Finish()
}

// A contextReader stops when its context is done.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// encode makes the documents and descriptors anew from what Manifest and
// Config hold, over what the old documents hold.
func (i *Image) encode() error {
	raw, err := overlay(i.RawConfig, i.Config)
	if err != nil {
		return fmt.Errorf("encode config: %w", err)
	}
	i.RawConfig = raw
	i.Manifest.Config = v1.Descriptor{MediaType: i.Manifest.Config.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if i.Manifest.Layers == nil {
		i.Manifest.Layers = []v1.Descriptor{}
	}
	i.RawManifest, err = json.Marshal(i.Manifest)
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	mediaType := i.Manifest.MediaType
	if mediaType == "" {
		mediaType = v1.MediaTypeImageManifest
	}
	i.Descriptor = v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(i.RawManifest), Size: int64(len(i.RawManifest))}
	if len(i.RawConfig) > maxDocument || len(i.RawManifest) > maxDocument {
		return invalid("the documents would be larger than %d bytes", maxDocument)
	}
	_, err = parseConfig(i.RawConfig, i.Manifest)
	return err
}

// overlay encodes an image's configuration over an older one: what this
// package knows is replaced, what it does not know (docker's health checks,
// build triggers, shells) stays.
func overlay(old []byte, config v1.Image) ([]byte, error) {
	top, err := replaceKnown(old, config, v1.Image{Config: v1.ImageConfig{}})
	if err != nil {
		return nil, err
	}
	var before struct{ Config json.RawMessage }
	if err := json.Unmarshal(old, &before); err != nil {
		return nil, err
	}
	inner, err := replaceKnown(before.Config, config.Config, v1.ImageConfig{})
	if err != nil {
		return nil, err
	}
	if top["config"], err = json.Marshal(inner); err != nil {
		return nil, err
	}
	return json.Marshal(top)
}

func replaceKnown(old []byte, value, zero any) (map[string]json.RawMessage, error) {
	merged := map[string]json.RawMessage{}
	if len(old) > 0 && string(old) != "null" {
		if err := json.Unmarshal(old, &merged); err != nil {
			return nil, err
		}
	}
	for _, key := range knownKeys(zero) {
		delete(merged, key)
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	var fresh map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fresh); err != nil {
		return nil, err
	}
	maps.Copy(merged, fresh)
	return merged, nil
}

// knownKeys returns the JSON keys of a struct, those of embedded ones too.
func knownKeys(v any) []string {
	var keys []string
	for f := range reflect.TypeOf(v).Fields() {
		if f.Anonymous {
			keys = append(keys, knownKeys(reflect.New(f.Type).Elem().Interface())...)
			continue
		}
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		keys = append(keys, key)
	}
	return keys
}

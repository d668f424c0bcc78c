package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/rootfs"
)

// UnpackLayer unpacks a layer's uncompressed tar stream onto the tree at root.
// If it fails the tree is left half done.
func UnpackLayer(root string, layer io.Reader, opt *UnpackOptions) error {
	return bundle.ApplyLayer(context.Background(), root, layer, opt.layerOptions())
}

// TarExtractor unpacks one layer entry by entry.
type TarExtractor struct{ x *bundle.Extractor }

// NewTarExtractor returns an extractor for one layer.
func NewTarExtractor(opt *UnpackOptions) *TarExtractor {
	return &TarExtractor{bundle.NewExtractor(opt.layerOptions())}
}

// UnpackEntry unpacks one entry onto the tree at root, or removes what a
// whiteout says.
func (t *TarExtractor) UnpackEntry(root string, hdr *tar.Header, r io.Reader) error {
	return t.x.Extract(context.Background(), root, hdr, r)
}

// CleanPath makes a path clean, and free of leading "..": one that is resolved
// below some directory stays there, links aside. The empty path stays empty.
func CleanPath(p string) string {
	if p == "" {
		return ""
	}
	clean := path.Clean(p)
	if path.IsAbs(clean) {
		return clean
	}
	return path.Clean(strings.TrimPrefix(path.Clean("/"+clean), "/"))
}

// UnpackRootfs unpacks the layers of a manifest to the directory rootfsPath,
// which it makes; if layers are there already, see UnpackOptions.StartFrom. If
// it fails nothing of the directory stays.
func UnpackRootfs(ctx context.Context, engine Engine, rootfsPath string, manifest ispec.Manifest, opt *UnpackOptions) error {
	o := opt.layerOptions()
	if o.Format != rootfs.Directory {
		return fmt.Errorf("unpack %s: layers for overlayfs are unpacked one by one: %w", rootfsPath, errdefs.ErrNotImplemented)
	}
	src := sourceOf(engine)
	img, err := image.FromManifest(ctx, src, manifest)
	if err != nil {
		return err
	}
	if opt == nil || opt.AfterLayerUnpack == nil && opt.StartFrom.MediaType == "" {
		return bundle.Rootfs(ctx, src, img, rootfsPath, o.UnpackOptions)
	}
	if err := unpackOneByOne(ctx, src, img, rootfsPath, o, opt); err != nil {
		return errors.Join(err, os.RemoveAll(rootfsPath))
	}
	return nil
}

func unpackOneByOne(ctx context.Context, src image.Source, img *image.Image, dir string, o bundle.LayerOptions, opt *UnpackOptions) error {
	layers := img.Manifest.Layers
	first := 0
	if opt.StartFrom.MediaType != "" {
		for first < len(layers) && layers[first].Digest != opt.StartFrom.Digest {
			first++
		}
	} else {
		// A tree without layers is made as any, so that it has the owner and the
		// times of one.
		empty := &image.Image{}
		if err := bundle.Rootfs(ctx, src, empty, dir, o.UnpackOptions); err != nil {
			return err
		}
	}
	for i, desc := range layers[first:] {
		if err := unpackOne(ctx, src, img, first+i, dir, o); err != nil {
			return fmt.Errorf("unpack layer %s: %w", desc.Digest, err)
		}
		if opt.AfterLayerUnpack == nil {
			continue
		}
		if err := opt.AfterLayerUnpack(img.Manifest, desc); err != nil {
			return err
		}
	}
	return nil
}

func unpackOne(ctx context.Context, src image.Source, img *image.Image, i int, dir string, o bundle.LayerOptions) error {
	r, err := image.OpenTar(ctx, src, img.Manifest.Layers[i], img.DiffIDs()[i])
	if err != nil {
		return err
	}
	defer r.Close()
	if err := bundle.ApplyLayer(ctx, dir, r, o); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r) // what follows the archive counts for its digests
	return err
}

// UnpackManifest makes the directory bundlePath, of mode 0700, with the layers
// of a manifest in rootfs and a runtime configuration in config.json. Neither
// may be there. If it fails nothing of them stays.
func UnpackManifest(ctx context.Context, engine Engine, bundlePath string, manifest ispec.Manifest, opt *UnpackOptions) (err error) {
	if err := os.MkdirAll(bundlePath, 0o755); err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	if err := os.Chmod(bundlePath, 0o700); err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	config, root := filepath.Join(bundlePath, bundle.ConfigName), filepath.Join(bundlePath, RootfsName)
	names := []string{config, root}
	if opt != nil && opt.StartFrom.MediaType != "" {
		names = names[:1]
	}
	for _, name := range names {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, fmt.Errorf("make bundle: %s exists: %w", name, errdefs.ErrAlreadyExists))
		}
	}
	if err := UnpackRootfs(ctx, engine, root, manifest, opt); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(root), os.RemoveAll(config))
		}
	}()
	f, err := os.Create(config)
	if err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	var m *MapOptions
	if opt != nil {
		mapped := opt.MapOptions()
		m = &mapped
	}
	return errors.Join(UnpackRuntimeJSON(ctx, engine, f, root, manifest, m), f.Close())
}

// UnpackRuntimeJSON writes the runtime configuration that a manifest's image
// describes. The user is looked up in the files below rootfs; if that is empty,
// one that is not a number becomes root.
func UnpackRuntimeJSON(ctx context.Context, engine Engine, configFile io.Writer, rootfs string, manifest ispec.Manifest, opt *MapOptions) error {
	img, err := image.FromManifest(ctx, sourceOf(engine), manifest)
	if err != nil {
		return err
	}
	var m MapOptions
	if opt != nil {
		m = *opt
	}
	spec, err := bundle.RuntimeSpec(img.Config, bundle.SpecOptions{Rootfs: rootfs, Mappings: m.mappings()})
	if err != nil {
		return err
	}
	return bundle.WriteSpec(configFile, spec)
}

func sourceOf(e Engine) image.Source { return image.Checked(engineSource{e}) }

// engineSource is an engine as a place of blobs, which are checked as they are
// read.
type engineSource struct{ e Engine }

func (engineSource) Index(context.Context) (ispec.Index, error) {
	return ispec.Index{}, errdefs.ErrNotImplemented
}

func (s engineSource) OpenAt(ctx context.Context, desc ispec.Descriptor, offset int64) (io.ReadCloser, error) {
	blob, err := s.e.GetBlob(ctx, desc.Digest)
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", desc.Digest, err)
	}
	if _, err := io.CopyN(io.Discard, blob, offset); err != nil {
		return nil, errors.Join(fmt.Errorf("open blob %s: %w", desc.Digest, err), blob.Close())
	}
	return blob, nil
}

func (engineSource) String() string { return "the engine" }

func (engineSource) Close() error { return nil }

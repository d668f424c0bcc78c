package layer_test

import (
	"archive/tar"
	"context"
	"io"
	"reflect"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vbatts/go-mtree"

	"github.com/hostcompute/hcs/compat/umoci/layer"
)

// casEngine has the methods of umoci's cas.Engine.
type casEngine interface {
	PutBlob(context.Context, io.Reader) (digest.Digest, int64, error)
	GetBlob(context.Context, digest.Digest) (io.ReadCloser, error)
	StatBlob(context.Context, digest.Digest) (bool, error)
	PutIndex(context.Context, ispec.Index) error
	GetIndex(context.Context) (ispec.Index, error)
	DeleteBlob(context.Context, digest.Digest) error
	ListBlobs(context.Context) ([]digest.Digest, error)
	Clean(context.Context) error
	Close() error
}

// All exported names of umoci's layer package as it is since version 0.6, each
// with umoci's own form: what differs does not compile. Before, the mappings
// stood in the options themselves, and NewTarExtractor took them by value; there
// was no OnDiskFormat but a WhiteoutMode and TranslateOverlayWhiteouts. A
// program for that has to be changed for today's umoci likewise.
var (
	_ func(string, []mtree.InodeDelta, *layer.RepackOptions) (io.ReadCloser, error) = layer.GenerateLayer
	_ func(string, string, bool, *layer.RepackOptions) io.ReadCloser                = layer.GenerateInsertLayer
	_ func(string, io.Reader, *layer.UnpackOptions) error                           = layer.UnpackLayer
	_ func(*layer.UnpackOptions) *layer.TarExtractor                                = layer.NewTarExtractor
	_ func(*layer.TarExtractor, string, *tar.Header, io.Reader) error               = (*layer.TarExtractor).UnpackEntry
	_ func(string) string                                                           = layer.CleanPath
	_ func(ispec.Manifest, ispec.Descriptor) error                                  = layer.AfterLayerUnpackCallback(nil)

	_ layer.OnDiskFormat = layer.DirRootfs{}
	_ layer.OnDiskFormat = layer.OverlayfsRootfs{}
	_ layer.Engine       = casEngine(nil)

	_ func(layer.UnpackOptions) layer.MapOptions = layer.UnpackOptions.MapOptions
	_ func(layer.RepackOptions) layer.MapOptions = layer.RepackOptions.MapOptions
)

const _ string = layer.RootfsName

// Those that take umoci's engine take less of one here, which calls do not see.
var (
	_ = func(ctx context.Context, e casEngine, rootfs string, m ispec.Manifest, o *layer.UnpackOptions) (error, error) {
		return layer.UnpackManifest(ctx, e, rootfs, m, o), layer.UnpackRootfs(ctx, e, rootfs, m, o)
	}
	_ = func(ctx context.Context, e casEngine, w io.Writer, rootfs string, m ispec.Manifest, o *layer.MapOptions) error {
		return layer.UnpackRuntimeJSON(ctx, e, w, rootfs, m, o)
	}
)

// TestFields holds the structs against umoci's, field by field in order, with
// the tags that umoci.json is written by.
func TestFields(t *testing.T) {
	t.Parallel()
	type mapOptions struct {
		UIDMappings []rspec.LinuxIDMapping `json:"uid_mappings"`
		GIDMappings []rspec.LinuxIDMapping `json:"gid_mappings"`
		Rootless    bool                   `json:"rootless"`
	}
	type unpackOptions struct {
		OnDiskFormat     layer.OnDiskFormat
		KeepDirlinks     bool
		AfterLayerUnpack layer.AfterLayerUnpackCallback
		StartFrom        ispec.Descriptor
	}
	type repackOptions struct {
		OnDiskFormat    layer.OnDiskFormat
		SourceDateEpoch *time.Time
	}
	type dirRootfs struct{ MapOptions layer.MapOptions }
	type overlayfsRootfs struct {
		MapOptions layer.MapOptions
		UserXattr  bool
	}
	for ours, theirs := range map[reflect.Type]reflect.Type{
		reflect.TypeFor[layer.MapOptions]():      reflect.TypeFor[mapOptions](),
		reflect.TypeFor[layer.UnpackOptions]():   reflect.TypeFor[unpackOptions](),
		reflect.TypeFor[layer.RepackOptions]():   reflect.TypeFor[repackOptions](),
		reflect.TypeFor[layer.DirRootfs]():       reflect.TypeFor[dirRootfs](),
		reflect.TypeFor[layer.OverlayfsRootfs](): reflect.TypeFor[overlayfsRootfs](),
	} {
		got, want := reflect.VisibleFields(ours), reflect.VisibleFields(theirs)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v has the fields\n%+v\nwant\n%+v", ours, got, want)
		}
	}
}

package layer

import (
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	rspec "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/rootfs"
)

// RootfsName is the name of the root directory in a bundle.
const RootfsName = bundle.RootfsName

// Engine is what is needed of umoci's cas.Engine, which satisfies it.
type Engine interface {
	// GetBlob opens a blob. Its content need not have been checked.
	GetBlob(ctx context.Context, digest digest.Digest) (io.ReadCloser, error)
}

// OnDiskFormat is what a layer becomes on disk: [DirRootfs] or
// [OverlayfsRootfs].
type OnDiskFormat interface {
	// Map returns how owners are mapped.
	Map() MapOptions

	format() (rootfs.Format, bool)
}

// DirRootfs is a plain tree, onto which all layers are unpacked. It is the
// default.
type DirRootfs struct {
	MapOptions MapOptions
}

// Map returns how owners are mapped.
func (f DirRootfs) Map() MapOptions { return f.MapOptions }

func (DirRootfs) format() (rootfs.Format, bool) { return rootfs.Directory, false }

// OverlayfsRootfs is a tree of one layer alone, for overlayfs to stack.
type OverlayfsRootfs struct {
	MapOptions MapOptions
	// UserXattr has overlayfs's marks in user.overlay.*, for mounts with the
	// option userxattr.
	UserXattr bool
}

// Map returns how owners are mapped.
func (f OverlayfsRootfs) Map() MapOptions { return f.MapOptions }

func (f OverlayfsRootfs) format() (rootfs.Format, bool) { return rootfs.OverlayUpper, f.UserXattr }

// MapOptions says how owners in layers become owners on disk.
type MapOptions struct {
	UIDMappings []rspec.LinuxIDMapping `json:"uid_mappings"`
	GIDMappings []rspec.LinuxIDMapping `json:"gid_mappings"`
	// Rootless leaves everything to the caller, and keeps other owners in an
	// extended attribute.
	Rootless bool `json:"rootless"`
}

func (m MapOptions) mappings() bundle.Mappings {
	return bundle.Mappings{UIDs: m.UIDMappings, GIDs: m.GIDMappings, Rootless: m.Rootless}
}

// AfterLayerUnpackCallback is called after each layer.
type AfterLayerUnpackCallback func(manifest ispec.Manifest, desc ispec.Descriptor) error

// UnpackOptions says how layers are unpacked. Nil is the zero value.
type UnpackOptions struct {
	OnDiskFormat OnDiskFormat // nil is DirRootfs
	// KeepDirlinks keeps a symbolic link to a directory where a layer has a
	// directory of that name.
	KeepDirlinks bool
	// AfterLayerUnpack, if not nil, is called after each layer. Layers are then
	// unpacked one after the other.
	AfterLayerUnpack AfterLayerUnpackCallback
	// StartFrom is the first layer to unpack, onto a tree that has the others;
	// the zero value unpacks all.
	StartFrom ispec.Descriptor
}

// MapOptions returns how owners are mapped.
func (o UnpackOptions) MapOptions() MapOptions { return formatOf(o.OnDiskFormat).Map() }

// layerOptions are for package bundle.
func (o *UnpackOptions) layerOptions() bundle.LayerOptions {
	if o == nil {
		return bundle.LayerOptions{}
	}
	f := formatOf(o.OnDiskFormat)
	l := bundle.LayerOptions{UnpackOptions: bundle.UnpackOptions{Mappings: f.Map().mappings(), KeepDirlinks: o.KeepDirlinks}}
	l.Format, l.UserXattr = f.format()
	return l
}

// RepackOptions says how layers are made. Nil is the zero value.
type RepackOptions struct {
	OnDiskFormat    OnDiskFormat // that of the tree; nil is DirRootfs
	SourceDateEpoch *time.Time   // the latest time that anything in a layer has, if not nil
}

// MapOptions returns how owners are mapped.
func (o RepackOptions) MapOptions() MapOptions { return formatOf(o.OnDiskFormat).Map() }

func formatOf(f OnDiskFormat) OnDiskFormat {
	if f == nil {
		return DirRootfs{}
	}
	return f
}

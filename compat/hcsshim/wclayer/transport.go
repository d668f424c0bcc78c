package wclayer

import (
	"context"
	"errors"

	"github.com/hostcompute/hcs/rootfs"
)

// ExportLayer writes a layer to the folder at a path, which is made, or may be there and empty, as the transport folder that
// ImportLayer reads. Of a scratch layer, which must be active and not prepared, it is what was written into it. The parents
// are given nearest first. The folder is there when the call succeeds, and as it was when it fails.
func ExportLayer(ctx context.Context, path string, exportFolderPath string, parentLayerPaths []string) (err error) {
	defer fail(&err, "hcsshim::ExportLayer", path)
	if err := errors.Join(ctx.Err(), checkParents(parentLayerPaths)); err != nil {
		return err
	}
	source, err := export(ctx, path, parentLayerPaths, rootfs.KeepLinks)
	if err != nil {
		return err
	}
	opts := rootfs.TransportOptions{UserXattr: options().UserXattr, Parents: parentLayerPaths}
	return rootfs.WriteTransport(ctx, exportFolderPath, source, opts)
}

// ImportLayer makes the layer at a path, where an empty directory may be, of a transport folder, which stays as it is. All
// parents must be there; they are given nearest first. Without any it is a base layer, which removes nothing.
func ImportLayer(ctx context.Context, path string, importFolderPath string, parentLayerPaths []string) (err error) {
	defer fail(&err, "hcsshim::ImportLayer", path)
	if err := errors.Join(ctx.Err(), checkParents(parentLayerPaths)); err != nil {
		return err
	}
	source := func(emit rootfs.Emit) error {
		if len(parentLayerPaths) == 0 {
			emit = refuseTombstones(emit)
		}
		return rootfs.ReadTransport(ctx, importFolderPath, emit)
	}
	opts := options()
	opts.Processing = rootfs.Unprocessed // callers do that, with ProcessBaseLayer and ProcessUtilityVMImage
	_, err = rootfs.ImportEntries(ctx, path, parentLayerPaths, source, opts)
	return err
}

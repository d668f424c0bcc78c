// Package ociwclayer moves layers of Windows images between the tar streams that images hold and layer directories. A layer
// that is imported and exported has the same bytes.
package ociwclayer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hostcompute/hcs/compat/hcsshim/wclayer"
	"github.com/hostcompute/hcs/layer"
)

// ImportLayerFromTar makes the layer at path, where an empty directory may be, of the tar stream of a Windows image's layer,
// which may be compressed, and returns the bytes of its files. parentLayerPaths are the layers below, nearest first. r is
// read to its end.
func ImportLayerFromTar(ctx context.Context, r io.Reader, path string, parentLayerPaths []string) (size int64, err error) {
	stream, _, err := layer.Decompress(r, layer.Limits{})
	if err != nil {
		return 0, fmt.Errorf("import layer: %w", err)
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	return wclayer.ImportStream(ctx, path, parentLayerPaths, stream)
}

// ExportLayerToTar writes the layer at path to w as an uncompressed tar stream, the one it was imported from.
// parentLayerPaths are the layers below, nearest first.
func ExportLayerToTar(ctx context.Context, w io.Writer, path string, parentLayerPaths []string) error {
	return wclayer.ExportStream(ctx, path, parentLayerPaths, w)
}

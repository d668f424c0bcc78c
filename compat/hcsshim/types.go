package hcsshim

import (
	"context"

	"github.com/hostcompute/hcs/compat/hcsshim/wclayer"
)

// WC_LAYER_DESCRIPTOR names a parent layer as Windows' own calls want it. Nothing here takes one.
type WC_LAYER_DESCRIPTOR = wclayer.WC_LAYER_DESCRIPTOR

// LayerReader reads a layer file by file, as Win32 backup streams.
type LayerReader = wclayer.LayerReader

// LayerWriter writes a layer file by file, as Win32 backup streams.
type LayerWriter = wclayer.LayerWriter

// FilterLayerReader is what NewLayerReader returned once. It has nothing to read: programs only name the type.
type FilterLayerReader = wclayer.FilterLayerReader

// FilterLayerWriter is what NewLayerWriter returned once. It takes nothing.
type FilterLayerWriter = wclayer.FilterLayerWriter

// NewLayerReader returns a reader of a layer, or of what was written into a scratch layer, which must be active and not
// prepared.
func NewLayerReader(info DriverInfo, layerID string, parentLayerPaths []string) (LayerReader, error) {
	return wclayer.NewLayerReader(context.Background(), info.path(layerID), parentLayerPaths)
}

// NewLayerWriter returns a writer of a layer, which is there when Close returned nil. Without parents it is a base layer.
func NewLayerWriter(info DriverInfo, layerID string, parentLayerPaths []string) (LayerWriter, error) {
	return wclayer.NewLayerWriter(context.Background(), info.path(layerID), parentLayerPaths)
}

package hcsshim

import (
	"context"
	"path/filepath"

	"github.com/hostcompute/hcs/compat/hcsshim/wclayer"
)

// DriverInfo says where layers are. HomeDir is the directory that an id is looked up in; it may be empty if ids are absolute
// paths. Flavour chose between Windows' drivers once and is not looked at.
type DriverInfo struct {
	Flavour int
	HomeDir string
}

// path returns a layer's directory.
func (i DriverInfo) path(id string) string {
	return filepath.Join(i.HomeDir, id)
}

// ActivateLayer makes a scratch layer's volume reachable; of a read-only layer there is nothing to do. DeactivateLayer is its
// counterpart. A layer that is active stays so.
func ActivateLayer(info DriverInfo, id string) error {
	return wclayer.ActivateLayer(context.Background(), info.path(id))
}

// CreateLayer makes the directory of a layer that is then imported. The parent is not looked at: importing has them all.
func CreateLayer(info DriverInfo, id, parent string) error {
	return wclayer.CreateLayer(context.Background(), info.path(id), parent)
}

// CreateScratchLayer makes a layer that takes what a container writes, on top of its parents, nearest first. The parent's id
// is not looked at.
func CreateScratchLayer(info DriverInfo, layerId, _ string, parentLayerPaths []string) error {
	return wclayer.CreateScratchLayer(context.Background(), info.path(layerId), parentLayerPaths)
}

// CreateSandboxLayer is CreateScratchLayer under its old name.
func CreateSandboxLayer(info DriverInfo, layerId, parentId string, parentLayerPaths []string) error {
	return CreateScratchLayer(info, layerId, parentId, parentLayerPaths)
}

// DeactivateLayer undoes ActivateLayer. A layer that is not active is none's trouble.
func DeactivateLayer(info DriverInfo, id string) error {
	return wclayer.DeactivateLayer(context.Background(), info.path(id))
}

// DestroyLayer removes a layer's directory. What is in use is not removed.
func DestroyLayer(info DriverInfo, id string) error {
	return wclayer.DestroyLayer(context.Background(), info.path(id))
}

// ExpandScratchSize gives a scratch layer room for size bytes at least, while it is in use too.
func ExpandScratchSize(info DriverInfo, layerId string, size uint64) error {
	return wclayer.ExpandScratchSize(context.Background(), info.path(layerId), size)
}

// ExpandSandboxSize is ExpandScratchSize under its old name.
func ExpandSandboxSize(info DriverInfo, layerId string, size uint64) error {
	return ExpandScratchSize(info, layerId, size)
}

// ExportLayer writes a layer, or what was written into a scratch layer, which must be active and not prepared, to a folder in
// the form that ImportLayer reads. The folder is made, or may be there and empty.
func ExportLayer(info DriverInfo, layerId string, exportFolderPath string, parentLayerPaths []string) error {
	return wclayer.ExportLayer(context.Background(), info.path(layerId), exportFolderPath, parentLayerPaths)
}

// GetLayerMountPath returns where a layer's files are: the mounted tree of a scratch layer that is active, otherwise the
// layer's directory, with the tree in Files.
func GetLayerMountPath(info DriverInfo, id string) (string, error) {
	return wclayer.GetLayerMountPath(context.Background(), info.path(id))
}

// GetSharedBaseImages returns the images that the machine offers as base images, as JSON.
func GetSharedBaseImages() (imageData string, err error) {
	return wclayer.GetSharedBaseImages(context.Background())
}

// ImportLayer makes a layer of a folder that ExportLayer has written, on top of its parents, nearest first.
func ImportLayer(info DriverInfo, layerID string, importFolderPath string, parentLayerPaths []string) error {
	return wclayer.ImportLayer(context.Background(), info.path(layerID), importFolderPath, parentLayerPaths)
}

// LayerExists reports whether there is a layer of that id.
func LayerExists(info DriverInfo, id string) (bool, error) {
	return wclayer.LayerExists(context.Background(), info.path(id))
}

// PrepareLayer makes the parents, nearest first, and an active scratch layer one tree, which GetLayerMountPath tells.
// UnprepareLayer is its counterpart.
func PrepareLayer(info DriverInfo, layerId string, parentLayerPaths []string) error {
	return wclayer.PrepareLayer(context.Background(), info.path(layerId), parentLayerPaths)
}

// ProcessBaseLayer makes a base layer of the directory at a path, whose files have been extracted to Files in it. See
// wclayer.ProcessBaseLayer for its errors.
func ProcessBaseLayer(path string) error {
	return wclayer.ProcessBaseLayer(context.Background(), path)
}

// ProcessUtilityVMImage makes ready the utility VM at a path, a layer's directory UtilityVM, whose files have been extracted
// to Files in it. See wclayer.ProcessUtilityVMImage for its errors.
func ProcessUtilityVMImage(path string) error {
	return wclayer.ProcessUtilityVMImage(context.Background(), path)
}

// UnprepareLayer undoes PrepareLayer. The error's code is 0x37 if the layer is not active, and 0x801f0015 if it is active but
// not prepared.
func UnprepareLayer(info DriverInfo, layerId string) error {
	return wclayer.UnprepareLayer(context.Background(), info.path(layerId))
}

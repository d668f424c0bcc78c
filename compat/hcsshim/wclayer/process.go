package wclayer

import (
	"context"
	"os"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/hcserror"
	"github.com/hostcompute/hcs/rootfs"
)

// ProcessBaseLayer makes a base layer of the directory at a path, whose files have been extracted to Files in it. Imports have
// done so already; then nothing happens. The error is an *os.PathError: 0x3 if a registry hive is missing in
// Files\Windows\System32\config, 0x3f1 (ERROR_BADDB) if one is damaged.
func ProcessBaseLayer(ctx context.Context, path string) (err error) {
	return pathError("hcsshim::ProcessBaseLayer", path, rootfs.ProcessBaseLayer(ctx, path))
}

// ProcessUtilityVMImage makes ready the utility VM at a path, a layer's directory UtilityVM, whose files have been extracted
// to Files in it. Imports have done so already; then nothing happens. The error is an *os.PathError: 0x3 if
// Files\EFI\Microsoft\Boot\BCD is missing, 0x3f1 (ERROR_BADDB) if it is no registry hive. See rootfs.ProcessUtilityVM for what
// it cannot do.
func ProcessUtilityVMImage(ctx context.Context, path string) (err error) {
	return pathError("hcsshim::ProcessUtilityVMImage", path, rootfs.ProcessUtilityVM(ctx, path))
}

// pathError is the error of these two calls, which have another one than all others.
func pathError(title, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: title, Path: path, Err: &hcserror.Coded{Code: hcserror.Code(err), Err: err}}
}

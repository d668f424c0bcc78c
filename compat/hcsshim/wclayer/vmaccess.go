package wclayer

import (
	"context"
	"fmt"
	"os"

	"github.com/Microsoft/go-winio/pkg/guid"
	"github.com/containerd/errdefs"
)

// GrantVmAccess is for programs that give a virtual machine access to a file before they attach it. On Windows each machine
// is an account of its own, and the file gets an entry for it. Here a machine has no account: its process is its owner's, and
// may open what he may. So there is nothing to add, and the call says whether the machine will be able to open the file: vmid
// must be a GUID and the file there, regular, and open to this process for reading and writing.
func GrantVmAccess(ctx context.Context, vmid string, filepath string) (err error) {
	defer fail(&err, "hcsshim::GrantVmAccess", filepath)
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := guid.FromString(vmid); err != nil {
		return fmt.Errorf("grant access to virtual machine %q: %w: %w", vmid, errdefs.ErrInvalidArgument, err)
	}
	info, err := os.Lstat(filepath)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("grant access to %s: it is no regular file: %w", filepath, errdefs.ErrInvalidArgument)
	}
	f, err := os.OpenFile(filepath, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

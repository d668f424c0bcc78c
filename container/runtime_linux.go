package container

import (
	"fmt"
	"runtime"

	"github.com/hostcompute/hcs/internal/seccomp"
	"github.com/hostcompute/hcs/internal/sys"
)

// againstNative returns what keeps this machine from starting containers
// without an OCI runtime.
func againstNative() error {
	if !seccomp.Supported() {
		return fmt.Errorf("it knows no system calls of %s", runtime.GOARCH)
	}
	return sys.CheckMountAPI()
}

//go:build !linux

package container

import (
	"fmt"
	"runtime"
)

// againstNative says that containers are Linux's.
func againstNative() error { return fmt.Errorf("it is not for %s", runtime.GOOS) }

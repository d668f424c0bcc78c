//go:build !unix

package image_test

import (
	"runtime"
	"testing"
)

func mkfifo(t testing.TB, _ string) {
	t.Helper()
	t.Skipf("%s has no FIFOs in directories", runtime.GOOS)
}

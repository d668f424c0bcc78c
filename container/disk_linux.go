package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/sys"
)

// diskOf returns the number, "major:minor", of the disk that a directory is on,
// as control groups limit it. What is on none, a tmpfs or a network's file
// system, is an error of class ErrNotImplemented. Of an overlay it is the disk
// that is written to.
func diskOf(dir string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	number := fmt.Sprintf("%d:%d", major(st.Dev), minor(st.Dev))
	device, err := filepath.EvalSymlinks("/sys/dev/block/" + number)
	if err != nil {
		upper, oerr := sys.OverlayUpper(number)
		if oerr == nil && upper != "" {
			return diskOf(upper)
		}
		return "", fault(errdefs.ErrNotImplemented, "limit its storage: %s is on no disk that control groups know", dir)
	}
	if _, err := os.Stat(filepath.Join(device, "partition")); err != nil {
		return number, nil
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(device), "dev")) // the whole disk's
	return strings.TrimSpace(string(text)), err
}

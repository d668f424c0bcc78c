package sys

import (
	"context"
	"os/exec"
	"path/filepath"
)

// Program is exec.CommandContext that also looks where programs for administrators are, which ordinary users' PATH often
// leaves out.
func Program(ctx context.Context, name string, args ...string) *exec.Cmd {
	if _, err := exec.LookPath(name); err != nil {
		for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
			if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				name = p
				break
			}
		}
	}
	return exec.CommandContext(ctx, name, args...)
}

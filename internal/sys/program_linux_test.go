package sys_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
)

func TestProgram(t *testing.T) {
	testenv.NeedCommand(t, "mkfs.xfs")
	t.Setenv("PATH", t.TempDir())
	c := sys.Program(t.Context(), "mkfs.xfs", "-V")
	if out, err := c.CombinedOutput(); err != nil || !filepath.IsAbs(c.Path) {
		t.Errorf("%s: %v: %s", c.Path, err, out)
	}
	if err := sys.Program(t.Context(), "no-such-program").Run(); err == nil {
		t.Error("there is no such program, and it ran")
	} else if x, ok := err.(*exec.Error); !ok || x.Name != "no-such-program" { //nolint:errorlint // as it is
		t.Errorf("the error is %v", err)
	}
}

package hcsshim

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/hcserror"
	compute "github.com/hostcompute/hcs/container"
)

// TestMappedPipes has where a container sees what.
func TestMappedPipes(t *testing.T) {
	t.Parallel()
	pipe := socket(t)
	for name, want := range map[string]string{
		"docker_engine": "/run/docker_engine", "/x/y": "/x/y", `\\.\pipe\p`: "/run/p", "../x": "/x",
	} {
		spec, err := specOf("web", &ContainerConfig{MappedPipes: []MappedPipe{{pipe, name}}})
		diff := cmp.Diff([]compute.Mount{{Source: pipe, Target: want}}, spec.Mounts)
		if err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
		ch, err := (&ResourceModificationRequestResponse{"MappedPipe", &MappedPipe{pipe, name}, Add}).change()
		if diff := cmp.Diff(spec.Mounts, ch.AddMounts); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	for _, bad := range []MappedPipe{{pipe, ""}, {pipe, `\\.\pipe\`}, {t.TempDir(), "x"}} {
		if _, err := bad.mount(); hcserror.Code(err) != hcserror.InvalidParameter {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if _, err := (&MappedPipe{"/no/such/pipe", "x"}).mount(); hcserror.Code(err) != hcserror.PathNotFound {
		t.Errorf("a pipe that there is not: %v", err)
	}
}

// socket returns the path of one.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hcs") //nolint:usetesting // t.TempDir's are long, and a socket's path has a limit
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/layer"
)

// TestWindowsImages runs the scripts in testdata/windows, which have a copy of
// a layout with a Windows image of three layers, tagged "three", as
// $WORK/layout.
func TestWindowsImages(t *testing.T) {
	t.Parallel()
	made := filepath.Join(t.TempDir(), "layout")
	windowsLayout(t, made)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/windows", Cmds: commands, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HCS_ROOT", filepath.Join(e.WorkDir, ".hcs", "root"))
			e.Setenv("HCS_RUN", filepath.Join(e.WorkDir, ".hcs", "run"))
			return os.CopyFS(filepath.Join(e.WorkDir, "layout"), os.DirFS(made))
		},
	})
}

func windowsLayout(t *testing.T, dir string) {
	t.Helper()
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	three, err := layertest.NewWindowsImage()
	must(t, err)
	tars, err := three.Tars()
	must(t, err)
	l, err := image.CreateLayout(t.Context(), dir)
	must(t, err)
	config := v1.Image{Platform: v1.Platform{OS: "windows", Architecture: "amd64", OSVersion: "10.0.20348.2227"}}
	base, err := l.New(t.Context(), "three", config)
	must(t, err)
	e, err := l.Edit(t.Context(), base)
	must(t, err)
	defer e.Close()
	for i, tar := range tars {
		_, err := e.AddTar(t.Context(), layer.Gzip, bytes.NewReader(tar))
		must(t, err)
		e.AddHistory(v1.History{CreatedBy: []string{"base", "app", "top"}[i]})
	}
	_, err = e.Commit(t.Context(), "three")
	must(t, err)
}

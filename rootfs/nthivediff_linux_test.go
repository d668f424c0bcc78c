package rootfs_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/regf"
	"github.com/hostcompute/hcs/rootfs"
)

// windowsLayers imports the image of three layers, and returns their directories, nearest first.
func windowsLayers(t *testing.T) []string {
	t.Helper()
	image, err := layertest.NewWindowsImage()
	must(t, err)
	tars, err := image.Tars()
	must(t, err)
	top, layers := t.TempDir(), []string(nil)
	for i, stream := range tars {
		dir := filepath.Join(top, string(rune('a'+i)))
		_, err := importNT(t, dir, layers, stream)
		must(t, err)
		layers = append([]string{dir}, layers...)
	}
	return layers
}

const config = "Windows/System32/config/"

func softwareOf(t *testing.T, layers []string) model {
	t.Helper()
	h, err := rootfs.OpenHive(layers, rootfs.SoftwareHive)
	must(t, err)
	m := modelOf(t, h.Hive)
	must(t, h.Close())
	return m
}

func parsedModel(t *testing.T, hive []byte) model {
	t.Helper()
	h, err := regf.Parse(hive)
	must(t, err)
	return modelOf(t, h)
}

// TestNTDiffHives writes the registry of mounted layers: the layer that comes of it has the change as a delta.
func TestNTDiffHives(t *testing.T) {
	layers := windowsLayers(t)
	before := softwareOf(t, layers)
	for _, c := range []struct {
		name  string
		write func(file string, hive []byte) ([]byte, error) // returns what the hive shall be
		delta bool
		files []string // of the hive's directory, that are in the layer
	}{
		{"opened for writing", func(file string, hive []byte) ([]byte, error) {
			f, err := os.OpenFile(file, os.O_RDWR, 0)
			return hive, errors.Join(err, f.Close())
		}, false, nil},
		{"changed", func(file string, hive []byte) ([]byte, error) {
			edited, _, err := layertest.EditHive(hive, `HKEY_LOCAL_MACHINE\SOFTWARE`, "[HKEY_LOCAL_MACHINE\\SOFTWARE\\New\\Key]\n\"v\"=dword:00000007\n")
			return edited, errors.Join(err, os.WriteFile(file, edited, 0o600), os.WriteFile(file+".LOG1", []byte("log"), 0o600))
		}, true, nil},
		{"made anew", func(file string, hive []byte) ([]byte, error) {
			edited, _, err := layertest.EditHive(hive, `HKEY_LOCAL_MACHINE\SOFTWARE`, "[HKEY_LOCAL_MACHINE\\SOFTWARE\\New\\Key]\n\"v\"=dword:00000007\n")
			return edited, errors.Join(err, os.Remove(file), os.WriteFile(file, edited, 0o600))
		}, true, nil},
		{"no hive", func(file string, hive []byte) ([]byte, error) {
			return hive, os.WriteFile(file, []byte("no hive"), 0o600)
		}, false, []string{"file Files/" + config + "SOFTWARE"}},
		{"removed", func(file string, hive []byte) ([]byte, error) { return hive, os.Remove(file) }, false, []string{"whiteout Files/" + config + "SOFTWARE"}},
		{"another file", func(file string, hive []byte) ([]byte, error) {
			return hive, os.WriteFile(filepath.Dir(file)+"/COMPONENTS", hive, 0o600)
		}, false, []string{"file Files/" + config + "COMPONENTS"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := mountNT(t, layers)
			file := filepath.Join(v.Root(), config+"SOFTWARE")
			shown, err := os.ReadFile(file)
			must(t, err)
			if diff := cmp.Diff(before, parsedModel(t, shown)); diff != "" {
				t.Fatalf("the mounted tree has another hive: -layers +tree:\n%s", diff)
			}
			want, err := c.write(file, shown)
			must(t, err)
			must(t, v.Unprepare(t.Context()))
			s, err := v.NTScratch(layers)
			must(t, err)
			var files []string
			delta := false
			must(t, s.Diff(t.Context(), func(e *layer.Entry, _ io.Reader) error {
				if strings.HasPrefix(e.Name, "Files/"+config) {
					files = append(files, e.Kind.String()+" "+e.Name)
				}
				delta = delta || e.Name == "Hives/Software_Delta"
				return nil
			}))
			if !slices.Equal(files, c.files) || delta != c.delta {
				t.Errorf("the layer has %q; a delta: %v", files, delta)
			}
			var out bytes.Buffer
			must(t, s.Write(t.Context(), &out))
			dir := filepath.Join(t.TempDir(), "new")
			_, err = importNT(t, dir, layers, out.Bytes())
			must(t, err)
			if diff := cmp.Diff(parsedModel(t, want), softwareOf(t, append([]string{dir}, layers...))); diff != "" {
				t.Errorf("-written +imported:\n%s", diff)
			}
		})
	}
}

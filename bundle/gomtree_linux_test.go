package bundle_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hostcompute/hcs/internal/testenv"
)

// gomtree builds the program of that name, in the version that tools/go.mod says.
func gomtree(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "gomtree")
	build := exec.Command("go", "build", "-o", program, "github.com/vbatts/go-mtree/cmd/gomtree")
	build.Dir = "../tools"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build gomtree: %v: %s", err, out)
	}
	return program
}

// delta is a difference that gomtree found, as it prints it in JSON.
type delta struct {
	Path string `json:"path"`
	Type string `json:"type"`
	Keys []struct {
		Name string `json:"name"`
	} `json:"keys"`
}

// validate returns the differences as "path: what".
func validate(t *testing.T, program, bundle string) []string {
	t.Helper()
	manifests, err := filepath.Glob(filepath.Join(bundle, "*.mtree"))
	if err != nil || len(manifests) != 1 {
		t.Fatalf("the manifests are %q, %v", manifests, err)
	}
	cmd := exec.Command(program, "validate", "--strict", "--result-format", "json", "-f", manifests[0], "-p", filepath.Join(bundle, "rootfs"))
	out, err := cmd.Output()
	if _, differs := errors.AsType[*exec.ExitError](err); err != nil && !differs {
		t.Fatal(err)
	}
	if (err != nil) != (len(out) > 0) {
		t.Fatalf("gomtree says %v, and %q", err, out)
	}
	var deltas []delta
	if len(out) > 0 {
		must(t, json.Unmarshal(out, &deltas))
	}
	var found []string
	for _, d := range deltas {
		var keys []string
		for _, k := range d.Keys {
			keys = append(keys, " "+k.Name)
		}
		slices.Sort(keys)
		found = append(found, d.Path+": "+d.Type+strings.Join(keys, ""))
	}
	slices.Sort(found)
	return found
}

// TestGomtree has gomtree --strict find nothing in a new bundle, and every single thing that is changed.
func TestGomtree(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t) // owners are in the manifest
	program := gomtree(t)
	l, img := newImage(t, testLayers)
	then := time.Unix(1_000_000_000, 0)
	for name, tt := range map[string]struct {
		change func(root string) error
		want   []string
	}{
		"nothing": {func(string) error { return nil }, nil},
		"content": {func(root string) error {
			file := filepath.Join(root, "bin/sh")
			return errors.Join(os.WriteFile(file, []byte("ANOTHER SHELL"), 0o600), os.Chtimes(file, then, then))
		}, []string{"bin/sh: modified sha256digest"}},
		"size": {func(root string) error {
			file := filepath.Join(root, "bin/sh")
			return errors.Join(os.Truncate(file, 7), os.Chtimes(file, then, then))
		}, []string{"bin/sh: modified sha256digest size"}},
		"mode":  {func(root string) error { return os.Chmod(filepath.Join(root, "usr/lib"), 0o700) }, []string{"usr/lib: modified mode"}},
		"user":  {func(root string) error { return os.Lchown(filepath.Join(root, "usr/lib/c"), 9, -1) }, []string{"usr/lib/c: modified uid"}},
		"group": {func(root string) error { return os.Lchown(filepath.Join(root, "pipe"), -1, 9) }, []string{"pipe: modified gid"}},
		"time": {func(root string) error {
			return os.Chtimes(filepath.Join(root, "etc"), then, then.Add(time.Second))
		}, []string{"etc: modified tar_time"}},
		"name": {func(root string) error {
			dir := filepath.Join(root, "kept")
			return errors.Join(os.Rename(dir+"/3", dir+"/4"), os.Chtimes(dir, then, then))
		}, []string{"kept/3: missing", "kept/4: extra"}},
		"attribute": {func(root string) error {
			return exec.Command("setfattr", "-n", "user.mark", "-v", "other", filepath.Join(root, "marked")).Run()
		}, []string{"marked: modified xattr.user.mark"}},
		"link": {func(root string) error {
			return errors.Join(
				os.Remove(filepath.Join(root, "lib")), os.Symlink("usr/bin", filepath.Join(root, "lib")),
				exec.Command("touch", "-h", "-d", "@1000000000", filepath.Join(root, "lib")).Run(),
				os.Chtimes(root, then, time.Unix(0, 0)))
		}, []string{"lib: modified link"}},
		"number of names": {func(root string) error {
			dir := filepath.Join(root, "usr/lib")
			return errors.Join(os.Link(dir+"/a", root+"/data/a"), os.Chtimes(root+"/data", then, then))
		}, []string{"data/a: extra", "usr/lib/a: modified nlink", "usr/lib/b: modified nlink"}},
		"type": {func(root string) error {
			file := filepath.Join(root, "data/x")
			return errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o644), os.Chtimes(file, then, then), os.Chtimes(root+"/data", then, then))
		}, []string{"data/x: modified sha256digest size type"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := unpack(t, l, img)
			must(t, tt.change(filepath.Join(b, "rootfs")))
			got := validate(t, program, b)
			if !slices.Equal(got, tt.want) {
				t.Errorf("gomtree finds %q, want %q", got, tt.want)
			}
		})
	}
}

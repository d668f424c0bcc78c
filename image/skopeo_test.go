package image_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/testenv"
)

// skopeo is asked to read what we write, and we read
// what it writes.
func TestSkopeoAgrees(t *testing.T) {
	t.Parallel()
	testenv.NeedCommand(t, "skopeo")
	skopeo := func(args ...string) {
		t.Helper()
		cmd := exec.Command("skopeo", append([]string{"--insecure-policy", "copy", "-q"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("skopeo copy %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	l := newLayout(t)
	l.index(tagged(l.image(host(), 1000, 300_000), "v1"))
	src, img := open(t, l.ref("v1"))
	dir := t.TempDir()
	for i, from := range []string{"oci:" + dir + "/l:v1", "oci-archive:" + dir + "/o:v1", "docker-archive:" + dir + "/d:debian:12"} {
		if err := copyTo(t, src, img, from); err != nil {
			t.Fatal(err)
		}
		for j, to := range []string{"oci:" + dir + "/L:v1", "oci-archive:" + dir + "/O:v1", "docker-archive:" + dir + "/D:debian:12"} {
			to = strings.Replace(to, dir+"/", dir+"/"+string(rune('a'+i))+string(rune('a'+j)), 1)
			skopeo(from, to)
			theirs, got := open(t, parse(t, to))
			if d := cmp.Diff(img.DiffIDs(), got.DiffIDs()); d != "" {
				t.Errorf("%s by way of %s: diffIDs (-want +got):\n%s", from, to, d)
			}
			for _, layer := range got.Manifest.Layers {
				if _, err := readAll(t, theirs, layer); err != nil {
					t.Errorf("%s by way of %s: %v", from, to, err)
				}
			}
		}
	}
}

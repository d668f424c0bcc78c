package image_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/image"
)

const sum = digest.Digest("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")

func TestParseRef(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want image.Ref
		out  string // what String gives, if not in
	}{
		{"oci:/srv/x", image.Ref{Transport: "oci", Path: "/srv/x", Tag: "latest"}, "oci:/srv/x:latest"},
		{"oci:x:v1.2", image.Ref{Transport: "oci", Path: "x", Tag: "v1.2"}, ""},
		{"oci:x:a/b-c:d", image.Ref{Transport: "oci", Path: "x", Tag: "a/b-c:d"}, ""},
		{`oci:C:\x:1`, image.Ref{Transport: "oci", Path: `C:\x`, Tag: "1"}, ""},
		{"oci:x@" + string(sum), image.Ref{Transport: "oci", Path: "x", Digest: sum}, ""},
		{"oci:x@y", image.Ref{Transport: "oci", Path: "x@y", Tag: "latest"}, "oci:x@y:latest"},
		{"oci-archive:f.tar", image.Ref{Transport: "oci-archive", Path: "f.tar"}, ""},
		{"docker-archive:f.tar", image.Ref{Transport: "docker-archive", Path: "f.tar"}, ""},
		{"docker-archive:f:debian:12", image.Ref{Transport: "docker-archive", Path: "f", Tag: "debian:12"}, ""},
		{"docker-archive:f:docker.io/library/debian", image.Ref{Transport: "docker-archive", Path: "f", Tag: "debian:latest"}, "docker-archive:f:debian:latest"},
		{"busybox", image.Ref{Path: "busybox", Tag: "latest"}, "busybox:latest"},
		{"library/busybox", image.Ref{Path: "busybox", Tag: "latest"}, "busybox:latest"},
		{"docker.io/a/b:1", image.Ref{Path: "a/b", Tag: "1"}, "a/b:1"},
		{"localhost:5000/a__b/c-d--e:V_1", image.Ref{Path: "localhost:5000/a__b/c-d--e", Tag: "V_1"}, ""},
		{"debian@" + string(sum), image.Ref{Path: "debian", Digest: sum}, ""},
		{"debian:12@" + string(sum), image.Ref{Path: "debian", Tag: "12", Digest: sum}, ""},
		{string(sum), image.Ref{Digest: sum}, ""},
		{"docker:24", image.Ref{Path: "docker", Tag: "24"}, ""},
		{"docker://debian", image.Ref{Transport: "docker", Path: "debian", Tag: "latest"}, "docker://debian:latest"},
		{"docker://docker.io/library/debian:12", image.Ref{Transport: "docker", Path: "debian", Tag: "12"}, "docker://debian:12"},
		{"docker:localhost:5000/a/b:1", image.Ref{Transport: "docker", Path: "localhost:5000/a/b", Tag: "1"}, "docker://localhost:5000/a/b:1"},
		{"docker://[::1]:5000/a@" + string(sum), image.Ref{Transport: "docker", Path: "[::1]:5000/a", Digest: sum}, ""},
		{"[::1]/a", image.Ref{Path: "[::1]/a", Tag: "latest"}, "[::1]/a:latest"},
	}
	for _, tt := range tests {
		got, err := image.ParseRef(tt.in)
		if err != nil {
			t.Errorf("ParseRef(%q): %v", tt.in, err)
			continue
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("ParseRef(%q) (-want +got):\n%s", tt.in, d)
		}
		out := tt.out
		if out == "" {
			out = tt.in
		}
		if got.String() != out {
			t.Errorf("ParseRef(%q).String() = %q, want %q", tt.in, got, out)
		}
	}
}

func TestParseRefRefuses(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"", "oci", "library/oci:1", "oci:", "oci::x", "oci:x:", "oci:x:a b", "oci:x:../y", "oci:x:1@" + string(sum), "oci:x@sha256:12",
		"https://debian", "docker://", "docker:///a", "docker://" + string(sum), "docker:a//b", "docker://a:b:c", "docker-archive:f:DEBIAN", "Debian", "debian:", "debian:a:b", "a//b", "/a", "a/", "a..b", ".a", "a_-b",
		"deb\x00ian", "deb\nian", "debian:" + strings.Repeat("a", 129), strings.Repeat("a/", 200) + "a", "oci:" + strings.Repeat("a", 5000),
		"debian@sha256:" + strings.Repeat("A", 64), "localhost:x/a", "[::1/a", "[1.2.3.4]/a", "[::1]x/a",
		"[::1]:/a", "a[::1]/a",
	} {
		r, err := image.ParseRef(in)
		if !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("ParseRef(%.60q) = %+v, %v, want an invalid argument", in, r, err)
			continue
		}
		if strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("ParseRef(%.60q): the message %q is not one line", in, err)
		}
	}
}

func TestRepository(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][2]string{
		"debian":                          {"docker.io", "library/debian"},
		"docker://a/b":                    {"docker.io", "a/b"},
		"localhost:5000/a":                {"localhost:5000", "a"},
		"docker:[::1]:5000/a/b":           {"[::1]:5000", "a/b"},
		"quay.example/a:1@" + string(sum): {"quay.example", "a"},
	} {
		r, err := image.ParseRegistryRef(in)
		if err != nil {
			t.Errorf("ParseRegistryRef(%q): %v", in, err)
			continue
		}
		if host, name := r.Repository(); host != want[0] || name != want[1] {
			t.Errorf("repository of %q: %q, %q, want %q", in, host, name, want)
		}
	}
	for _, in := range []string{"oci:x", string(sum), ""} {
		if r, err := image.ParseRegistryRef(in); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("ParseRegistryRef(%q) = %+v, %v, want an invalid argument", in, r, err)
		}
	}
}

func FuzzRef(f *testing.F) {
	for _, s := range []string{"oci:x:1", "docker-archive:f:debian:12", "a/b:c", string(sum), `oci:C:\x`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := image.ParseRegistryRef(s); err == nil && (r.Transport != image.TransportDocker || r.Path == "") {
			t.Fatalf("ParseRegistryRef(%q) = %+v", s, r)
		}
		r, err := image.ParseRef(s)
		if err != nil {
			return
		}
		again, err := image.ParseRef(r.String())
		if err != nil || again != r {
			t.Fatalf("ParseRef(%q) = %+v, but of its own text %q it is %+v, %v", s, r, r, again, err)
		}
	})
}

package image_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/image"
)

// accounts opens an image's files from a map.
func accounts(files map[string]string) func(string) (io.ReadCloser, error) {
	return func(name string) (io.ReadCloser, error) {
		text, ok := files[name]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return io.NopCloser(strings.NewReader(text)), nil
	}
}

var usual = map[string]string{
	"/etc/passwd": "# comment\nroot:x:0:0:root:/root:/bin/sh\n\nbad:x:abc:0::/:\nminus:x:-1:0::/:\nhuge:x:4294967295:0::/:\nshort:x\n" +
		"www:x:33:34:w:/var/www:/bin/false\r\nnogid:x:77:x::/:\n44:x:55:56::/num:\nempty:x:::/:\n",
	"/etc/group": "root:x:0:\nadm:x:4:www,root\nwww:x:34:\nvideo:x:44:www\nvideo2:x:44:www\nbad:x:-1:www\nnone:x\nlast:x:99:other",
}

func TestResolveUser(t *testing.T) {
	t.Parallel()
	tests := []struct {
		spec  string
		files map[string]string
		want  specs.User
		home  string
	}{
		{"", usual, specs.User{AdditionalGids: []uint32{0, 4}}, "/root"},
		{"", nil, specs.User{AdditionalGids: []uint32{0}}, ""},
		{"root", usual, specs.User{AdditionalGids: []uint32{0, 4}}, "/root"},
		{"www", usual, specs.User{UID: 33, GID: 34, AdditionalGids: []uint32{34, 4, 44}}, "/var/www"},
		{"33", usual, specs.User{UID: 33, GID: 34, AdditionalGids: []uint32{34, 4, 44}}, "/var/www"},
		{"www:adm", usual, specs.User{UID: 33, GID: 4, AdditionalGids: []uint32{4}}, "/var/www"},
		{"www:77", usual, specs.User{UID: 33, GID: 77, AdditionalGids: []uint32{77}}, "/var/www"},
		{"www:", usual, specs.User{UID: 33, GID: 34, AdditionalGids: []uint32{34, 4, 44}}, "/var/www"},
		{"1000:1001", nil, specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{1001}}, ""},
		{"1000", usual, specs.User{UID: 1000, AdditionalGids: []uint32{0}}, ""},
		{"44", usual, specs.User{UID: 55, GID: 56, AdditionalGids: []uint32{56}}, "/num"},
		{"4294967294:4294967294", nil, specs.User{UID: 4294967294, GID: 4294967294, AdditionalGids: []uint32{4294967294}}, ""},
	}
	for _, tt := range tests {
		got, home, err := image.ResolveUser(tt.spec, accounts(tt.files))
		if err != nil {
			t.Errorf("%q: %v", tt.spec, err)
			continue
		}
		if d := cmp.Diff(tt.want, got); d != "" || home != tt.home {
			t.Errorf("%q: home %q, want %q (-want +got):\n%s", tt.spec, home, tt.home, d)
		}
	}
}

func TestResolveUserRefuses(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	refuse := func(string) (io.ReadCloser, error) { return nil, broken }
	large := map[string]string{"/etc/passwd": strings.Repeat("a", 1<<20+1), "/etc/group": strings.Repeat("a", 1<<20+1)}
	tests := []struct {
		spec  string
		open  func(string) (io.ReadCloser, error)
		class error
		says  string
	}{
		{"nobody", accounts(usual), errdefs.ErrNotFound, `user "nobody" not found in the image's /etc/passwd`},
		{"nobody", accounts(nil), errdefs.ErrNotFound, "/etc/passwd"},
		{"www:nogroup", accounts(usual), errdefs.ErrNotFound, `group "nogroup" not found in the image's /etc/group`},
		{"bad", accounts(usual), errdefs.ErrNotFound, `"bad"`},
		{"huge", accounts(usual), errdefs.ErrNotFound, `"huge"`},
		{"empty", accounts(usual), errdefs.ErrNotFound, `"empty"`},
		{"-1", accounts(usual), errdefs.ErrInvalidArgument, "-1"},
		{"4294967295", accounts(usual), errdefs.ErrInvalidArgument, "4294967295"},
		{"0:4294967295", accounts(usual), errdefs.ErrInvalidArgument, "4294967295"},
		{"99999999999999999999", accounts(usual), errdefs.ErrInvalidArgument, "out of range"},
		{"a b", accounts(usual), errdefs.ErrInvalidArgument, "neither"},
		{"0:1:2", accounts(usual), errdefs.ErrInvalidArgument, "neither"},
		{"www", accounts(large), errdefs.ErrInvalidArgument, "1048576"},
		{"www", refuse, broken, "/etc/passwd"},
	}
	for _, tt := range tests {
		u, _, err := image.ResolveUser(tt.spec, tt.open)
		if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q: %+v, %v; want class %q and %q", tt.spec, u, err, tt.class, tt.says)
		}
	}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	cfg := v1.ImageConfig{User: "www", Entrypoint: []string{"/entry"}, Cmd: []string{"a", "b"}, Env: []string{"A=1", "B=2"}, WorkingDir: "srv"}
	const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	www := specs.User{UID: 33, GID: 34, AdditionalGids: []uint32{34, 4, 44}}
	root := specs.User{AdditionalGids: []uint32{0, 4}}
	tests := []struct {
		cfg  v1.ImageConfig
		o    image.Overrides
		want specs.Process
	}{
		{cfg, image.Overrides{}, specs.Process{User: www, Args: []string{"/entry", "a", "b"}, Cwd: "/srv", Env: []string{"A=1", "B=2", path, "HOME=/var/www"}}},
		{cfg, image.Overrides{Args: []string{"c"}, Env: []string{"A=3", "C=", "HOME=/h"}, Cwd: "/x/../y"}, specs.Process{User: www, Args: []string{"/entry", "c"}, Cwd: "/y", Env: []string{"A=3", "B=2", "C=", "HOME=/h", path}}},
		{cfg, image.Overrides{Entrypoint: []string{"/e"}, User: "0"}, specs.Process{User: root, Args: []string{"/e"}, Cwd: "/srv", Env: []string{"A=1", "B=2", path, "HOME=/root"}}},
		{cfg, image.Overrides{Entrypoint: []string{}, Args: []string{"sh"}}, specs.Process{User: www, Args: []string{"sh"}, Cwd: "/srv", Env: []string{"A=1", "B=2", path, "HOME=/var/www"}}},
		{v1.ImageConfig{Cmd: []string{"sh"}, User: "9", Env: []string{"PATH=/p"}}, image.Overrides{Terminal: image.WithTerminal}, specs.Process{Terminal: true, User: specs.User{UID: 9, AdditionalGids: []uint32{0}}, Args: []string{"sh"}, Cwd: "/", Env: []string{"PATH=/p", "TERM=xterm", "HOME=/"}}},
	}
	for i, tt := range tests {
		got, err := image.Process(tt.cfg, tt.o, accounts(usual))
		if err != nil {
			t.Errorf("%d: %v", i, err)
			continue
		}
		if d := cmp.Diff(&tt.want, got); d != "" {
			t.Errorf("%d (-want +got):\n%s", i, d)
		}
	}
	for _, o := range []image.Overrides{
		{Entrypoint: []string{}}, {Cwd: "x"}, {Env: []string{"A"}}, {Env: []string{"=x"}}, {Args: []string{"a\x00b"}}, {Env: []string{"A=\x00"}},
	} {
		if p, err := image.Process(cfg, o, accounts(usual)); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%+v: %+v, %v", o, p, err)
		}
	}
}

func FuzzUser(f *testing.F) {
	f.Add("www:adm", usual["/etc/passwd"], usual["/etc/group"])
	f.Add("4294967295", "a:b:c:d", "::::")
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		u, _, err := image.ResolveUser(spec, accounts(map[string]string{"/etc/passwd": passwd, "/etc/group": group}))
		if err != nil {
			return
		}
		for _, id := range append([]uint32{u.UID, u.GID}, u.AdditionalGids...) {
			if id == 1<<32-1 {
				t.Fatalf("%q: %+v", spec, u)
			}
		}
		if who, _, _ := strings.Cut(spec, ":"); u.UID == 0 && strings.Trim(who, "0") != "" && !names(passwd, who, "0") {
			t.Fatalf("%q became root by %q", spec, passwd)
		}
	})
}

// names reports whether a line of passwd gives a user an id of that value.
func names(passwd, who, id string) bool {
	for line := range strings.SplitSeq(passwd, "\n") {
		f := strings.Split(line, ":")
		if len(f) > 3 && f[0] == who && strings.TrimLeft(f[2], "0") == strings.TrimLeft(id, "0") && f[2] != "" {
			return true
		}
	}
	return false
}

func FuzzLayout(f *testing.F) {
	l := newLayout(f)
	d := l.image(host(), 10)
	_, img := func() (image.Source, *image.Image) { l.index(tagged(d, "x")); return open(f, l.ref("x")) }()
	for kind, raw := range [][]byte{marshal(f, indexOf(tagged(d, "x"))), img.RawManifest, img.RawConfig} {
		f.Add(uint8(kind), raw)
	}
	f.Fuzz(func(t *testing.T, kind uint8, raw []byte) {
		l := newLayout(t)
		switch kind % 4 {
		case 0:
			l.file("index.json", raw)
		case 1:
			l.index(l.blob(v1.MediaTypeImageManifest, raw))
		case 2:
			l.index(l.blob(v1.MediaTypeImageIndex, raw))
		case 3:
			p := l.parts(host())
			p.manifest.Config = l.blob(v1.MediaTypeImageConfig, raw)
			l.index(l.json(v1.MediaTypeImageManifest, p.manifest))
		}
		ref := l.ref("")
		src, got, err := image.OpenImage(t.Context(), ref, v1.Platform{})
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("the message is not one line: %q", fmt.Sprint(err))
			}
			return
		}
		defer src.Close()
		if _, err := image.ReadTree(t.Context(), src, ref.Tag); err != nil && strings.Contains(err.Error(), "\n") {
			t.Fatalf("the message is not one line: %q", fmt.Sprint(err))
		}
		if len(got.DiffIDs()) != len(got.Manifest.Layers) {
			t.Fatalf("%d diffIDs for %d layers", len(got.DiffIDs()), len(got.Manifest.Layers))
		}
	})
}

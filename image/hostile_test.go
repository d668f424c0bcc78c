package image_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
)

// What hostile layouts do, above the layers' content, and what is answered:
// build spoils an image and returns what index.json lists under "x".
func TestHostileLayouts(t *testing.T) {
	t.Parallel()
	good := func(l *layoutDir) *parts { return l.parts(host(), layerTar(l.t, "a", 2000), layerTar(l.t, "b", 2000)) }
	escape := digest.Digest("sha256:../../../../../../../../etc/passwd")
	tests := []struct {
		name  string
		build func(l *layoutDir) v1.Descriptor
		class error
		says  string
	}{
		{"more layers than diffIDs", func(l *layoutDir) v1.Descriptor {
			p := good(l)
			p.config.RootFS.DiffIDs = p.config.RootFS.DiffIDs[:1]
			return l.write(p)
		}, errdefs.ErrInvalidArgument, "1 diffIDs, but its manifest has 2 layers"},
		{"fewer layers than diffIDs", func(l *layoutDir) v1.Descriptor {
			p := good(l)
			p.manifest.Layers = p.manifest.Layers[:1]
			return l.write(p)
		}, errdefs.ErrInvalidArgument, "2 diffIDs, but its manifest has 1 layers"},
		{"digest is a path", func(l *layoutDir) v1.Descriptor {
			p := good(l)
			p.manifest.Layers[0].Digest = escape
			return l.write(p)
		}, errdefs.ErrInvalidArgument, "digits"},
		{"manifest's digest is a path", func(*layoutDir) v1.Descriptor {
			return v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: escape, Size: 1}
		}, errdefs.ErrInvalidArgument, "digits"},
		{"diffID is a path", func(l *layoutDir) v1.Descriptor {
			p := good(l)
			p.config.RootFS.DiffIDs[1] = escape
			return l.write(p)
		}, errdefs.ErrInvalidArgument, "diffID 1"},
		{"unknown digest algorithm", func(*layoutDir) v1.Descriptor {
			return v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: "md5:d41d8cd98f00b204e9800998ecf8427e", Size: 1}
		}, errdefs.ErrInvalidArgument, "md5"},
		{"digest in upper case", func(l *layoutDir) v1.Descriptor {
			d := l.write(good(l))
			d.Digest = digest.Digest("sha256:" + strings.ToUpper(d.Digest.Encoded()))
			return d
		}, errdefs.ErrInvalidArgument, "lower case"},
		{"manifest and index at once", func(l *layoutDir) v1.Descriptor {
			p := good(l)
			p.manifest.Config = l.json(v1.MediaTypeImageConfig, p.config)
			raw := strings.Replace(string(marshal(l.t, p.manifest)), `{`, `{"manifests":[],`, 1)
			return l.blob(v1.MediaTypeImageManifest, []byte(raw))
		}, errdefs.ErrInvalidArgument, "ambiguous"},
		{"index and manifest at once", func(l *layoutDir) v1.Descriptor {
			raw := strings.Replace(string(marshal(l.t, indexOf(l.write(good(l))))), `{`, `{"layers":[],`, 1)
			return l.blob(v1.MediaTypeImageIndex, []byte(raw))
		}, errdefs.ErrInvalidArgument, "ambiguous"},
		{"index described as manifest", func(l *layoutDir) v1.Descriptor {
			return l.json(v1.MediaTypeImageManifest, indexOf(l.write(good(l))))
		}, errdefs.ErrInvalidArgument, "ambiguous"},
		{"manifest without layers", func(l *layoutDir) v1.Descriptor {
			return l.blob(v1.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{}}`))
		}, errdefs.ErrInvalidArgument, `no "layers"`},
		{"manifest's own media type differs", func(l *layoutDir) v1.Descriptor {
			p := good(l)
			p.manifest.MediaType = "application/vnd.docker.distribution.manifest.v2+json"
			return l.write(p)
		}, errdefs.ErrInvalidArgument, "its descriptor says"},
		{"key twice", func(l *layoutDir) v1.Descriptor {
			p := good(l)
			p.manifest.Config = l.json(v1.MediaTypeImageConfig, p.config)
			raw := strings.Replace(string(marshal(l.t, p.manifest)), `{`, `{"layers":[],`, 1)
			return l.blob(v1.MediaTypeImageManifest, []byte(raw))
		}, errdefs.ErrInvalidArgument, "twice"},
		{"key in another case", func(l *layoutDir) v1.Descriptor {
			p := good(l)
			p.manifest.Config = l.json(v1.MediaTypeImageConfig, p.config)
			raw := strings.Replace(string(marshal(l.t, p.manifest)), `{`, `{"Layers":[],`, 1)
			return l.blob(v1.MediaTypeImageManifest, []byte(raw))
		}, errdefs.ErrInvalidArgument, `"Layers"`},
		{"something after the manifest", func(l *layoutDir) v1.Descriptor {
			p := good(l)
			p.manifest.Config = l.json(v1.MediaTypeImageConfig, p.config)
			return l.blob(v1.MediaTypeImageManifest, append(marshal(l.t, p.manifest), " {}"...))
		}, errdefs.ErrInvalidArgument, "after top-level value"},
		{"truncated manifest", func(l *layoutDir) v1.Descriptor {
			d := l.write(good(l))
			l.file(blobFile(d.Digest), []byte("{"))
			return d
		}, errdefs.ErrDataLoss, "truncated: 1 of"},
		{"other content of the same length", func(l *layoutDir) v1.Descriptor {
			d := l.write(good(l))
			l.file(blobFile(d.Digest), make([]byte, d.Size))
			return d
		}, errdefs.ErrDataLoss, "its content has digest sha256:"},
		{"size too large", func(l *layoutDir) v1.Descriptor {
			d := l.write(good(l))
			d.Size++
			return d
		}, errdefs.ErrDataLoss, "truncated"},
		{"size too small", func(l *layoutDir) v1.Descriptor {
			d := l.write(good(l))
			d.Size--
			return d
		}, errdefs.ErrDataLoss, "more than"},
		{"negative size", func(l *layoutDir) v1.Descriptor {
			d := l.write(good(l))
			d.Size = -1
			return d
		}, errdefs.ErrInvalidArgument, "-1"},
		{"manifest of 5 MiB", func(l *layoutDir) v1.Descriptor {
			return l.blob(v1.MediaTypeImageManifest, make([]byte, 5<<20))
		}, errdefs.ErrInvalidArgument, "5242880 bytes"},
		{"embedded data of another length", func(l *layoutDir) v1.Descriptor {
			d := l.write(good(l))
			d.Data = []byte("x")
			return d
		}, errdefs.ErrDataLoss, "embeds 1 bytes"},
		{"other embedded data", func(l *layoutDir) v1.Descriptor {
			d := l.write(good(l))
			d.Data = make([]byte, d.Size)
			return d
		}, errdefs.ErrDataLoss, "embeds has digest"},
		{"other embedded data in a layer", func(l *layoutDir) v1.Descriptor {
			p := good(l)
			p.manifest.Layers[1].Data = make([]byte, p.manifest.Layers[1].Size)
			return l.write(p)
		}, errdefs.ErrDataLoss, "layer 1"},
		{"unknown media type", func(l *layoutDir) v1.Descriptor {
			d := l.write(good(l))
			d.MediaType = "application/x-unknown"
			return d
		}, errdefs.ErrInvalidArgument, "application/x-unknown"},
		{"layer of an unknown media type", func(l *layoutDir) v1.Descriptor {
			p := good(l)
			p.manifest.Layers[0].MediaType += "+br"
			return l.write(p)
		}, errdefs.ErrInvalidArgument, "tar+br"},
		{"config of an artifact", func(l *layoutDir) v1.Descriptor {
			p := good(l)
			p.manifest.Config = l.blob(v1.MediaTypeEmptyJSON, []byte("{}"))
			return l.json(v1.MediaTypeImageManifest, p.manifest)
		}, errdefs.ErrInvalidArgument, v1.MediaTypeEmptyJSON},
		{"rootfs of another type", func(l *layoutDir) v1.Descriptor {
			p := good(l)
			p.config.RootFS.Type = "other"
			return l.write(p)
		}, errdefs.ErrInvalidArgument, `"other"`},
		{"schema version 1", func(l *layoutDir) v1.Descriptor {
			p := good(l)
			p.manifest.SchemaVersion = 1
			return l.write(p)
		}, errdefs.ErrInvalidArgument, "schema version"},
		{"33 indexes deep", func(l *layoutDir) v1.Descriptor { return nest(l, on(l.write(good(l)), host()), 33, 1) }, errdefs.ErrInvalidArgument, "32 indexes deep"},
		{"32 indexes deep", func(l *layoutDir) v1.Descriptor { return nest(l, on(l.write(good(l)), host()), 32, 1) }, nil, ""},
		{"indexes that list a child 50 times, 20 deep", func(l *layoutDir) v1.Descriptor { return nest(l, on(l.write(good(l)), host()), 20, 50) }, nil, ""},
		{"two thousand indexes", func(l *layoutDir) v1.Descriptor {
			var list []v1.Descriptor
			for i := range 2000 {
				index := indexOf()
				index.Annotations = map[string]string{"n": fmt.Sprint(i)}
				list = append(list, l.json(v1.MediaTypeImageIndex, index))
			}
			return l.json(v1.MediaTypeImageIndex, indexOf(list...))
		}, errdefs.ErrInvalidArgument, "more than 1024"},
		{"indexes that list each other", func(l *layoutDir) v1.Descriptor {
			a := l.json(v1.MediaTypeImageIndex, indexOf(v1.Descriptor{MediaType: v1.MediaTypeImageIndex, Digest: digest.FromString("b"), Size: 100}))
			b := l.json(v1.MediaTypeImageIndex, indexOf(a))
			l.file(blobFile(a.Digest), marshal(l.t, indexOf(b))) // of the same size; but no digest is of a cycle
			return b
		}, errdefs.ErrDataLoss, "its content has digest"},
		{"manifest is not there", func(l *layoutDir) v1.Descriptor {
			d := l.write(good(l))
			l.remove(d)
			return d
		}, errdefs.ErrNotFound, "not found"},
		{"config is a symbolic link to itself elsewhere", func(l *layoutDir) v1.Descriptor {
			p := good(l)
			d := l.write(p)
			path := filepath.Join(l.dir, blobFile(p.manifest.Config.Digest))
			must(l.t, os.Rename(path, l.dir+"/elsewhere"))
			must(l.t, os.Symlink(l.dir+"/elsewhere", path))
			return d
		}, errdefs.ErrInvalidArgument, "not a regular file"},
		{"manifest is a FIFO", func(l *layoutDir) v1.Descriptor {
			d := l.write(good(l))
			l.remove(d)
			mkfifo(l.t, filepath.Join(l.dir, blobFile(d.Digest)))
			return d
		}, errdefs.ErrInvalidArgument, "not a regular file"},
		{"manifest is a directory", func(l *layoutDir) v1.Descriptor {
			d := l.write(good(l))
			l.remove(d)
			must(l.t, os.Mkdir(filepath.Join(l.dir, blobFile(d.Digest)), 0o755))
			return d
		}, errdefs.ErrInvalidArgument, "not a regular file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLayout(t)
			l.index(tagged(tt.build(l), "x"))
			start := time.Now()
			_, _, err := image.OpenImage(t.Context(), l.ref("x"), v1.Platform{})
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			if tt.class == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %v, want one line of class %q that says %q", err, tt.class, tt.says)
			}
		})
	}
}

// nest returns indexes within indexes; each lists the next times over.
func nest(l *layoutDir, d v1.Descriptor, depth, times int) v1.Descriptor {
	for range depth {
		list := make([]v1.Descriptor, times)
		for i := range list {
			list[i] = d
		}
		d = l.json(v1.MediaTypeImageIndex, indexOf(list...))
	}
	return d
}

func (l *layoutDir) remove(d v1.Descriptor) {
	l.t.Helper()
	must(l.t, os.Remove(filepath.Join(l.dir, blobFile(d.Digest))))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A bad layer is found while it is copied, and leaves nothing.
func TestHostileLayers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		spoil func(l *layoutDir, d v1.Descriptor)
		class error
	}{
		{"other content", func(l *layoutDir, d v1.Descriptor) { l.file(blobFile(d.Digest), make([]byte, d.Size)) }, errdefs.ErrDataLoss},
		{"truncated", func(l *layoutDir, d v1.Descriptor) { l.file(blobFile(d.Digest), make([]byte, d.Size-1)) }, errdefs.ErrDataLoss},
		{"longer", func(l *layoutDir, d v1.Descriptor) { l.file(blobFile(d.Digest), make([]byte, d.Size+1)) }, errdefs.ErrDataLoss},
		{"missing", func(l *layoutDir, d v1.Descriptor) { l.remove(d) }, errdefs.ErrNotFound},
		{"FIFO", func(l *layoutDir, d v1.Descriptor) {
			l.remove(d)
			mkfifo(l.t, filepath.Join(l.dir, blobFile(d.Digest)))
		}, errdefs.ErrInvalidArgument},
		{"symbolic link", func(l *layoutDir, d v1.Descriptor) {
			path := filepath.Join(l.dir, blobFile(d.Digest))
			must(l.t, os.Rename(path, l.dir+"/elsewhere"))
			must(l.t, os.Symlink(l.dir+"/elsewhere", path))
		}, errdefs.ErrInvalidArgument},
		{"directory", func(l *layoutDir, d v1.Descriptor) {
			l.remove(d)
			must(l.t, os.Mkdir(filepath.Join(l.dir, blobFile(d.Digest)), 0o755))
		}, errdefs.ErrInvalidArgument},
	}
	for _, tt := range tests {
		for _, layer := range []func(*testing.T) image.LoadOptions{plainLoad, unpackLoad, lazyLoad} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				l := newLayout(t)
				l.index(tagged(l.image(host(), 100, 600_000, 200), "x"))
				src, img := open(t, l.ref("x"))
				tt.spoil(l, img.Manifest.Layers[1])
				s := newStore(t)
				_, err := s.Load(t.Context(), src, img, "x", layer(t))
				if !errors.Is(err, tt.class) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), string(img.Manifest.Layers[1].Digest)) {
					t.Errorf("error is %v, want one line of class %q that names the layer", err, tt.class)
				}
				for _, to := range []string{"oci-archive", "docker-archive"} {
					file := filepath.Join(t.TempDir(), "a")
					if err := image.Copy(t.Context(), src, img, parse(t, to+":"+file)); !errors.Is(err, tt.class) {
						t.Errorf("copy to %s: %v", to, err)
					}
					if left, _ := os.ReadDir(filepath.Dir(file)); len(left) > 0 {
						t.Errorf("copy to %s left %v", to, left)
					}
				}
				isEmpty(t, s)
			})
		}
	}
}

// TestHostileLayoutFiles has what is beside the blobs.
func TestHostileLayoutFiles(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"index.json", "oci-layout"} {
		for what, replace := range map[string]func(l *layoutDir, path string){
			"FIFO": func(l *layoutDir, path string) { mkfifo(l.t, path) },
			"symbolic link": func(l *layoutDir, path string) {
				must(l.t, os.Symlink("/dev/zero", path))
			},
			"directory": func(l *layoutDir, path string) { must(l.t, os.Mkdir(path, 0o755)) },
			"huge file": func(l *layoutDir, path string) {
				must(l.t, os.WriteFile(path, nil, 0o644))
				must(l.t, os.Truncate(path, 1<<40))
			},
		} {
			t.Run(file+" "+what, func(t *testing.T) {
				t.Parallel()
				l := newLayout(t)
				l.index(tagged(l.image(host(), 10), "x"))
				path := filepath.Join(l.dir, file)
				must(t, os.Remove(path))
				replace(l, path)
				_, _, err := image.OpenImage(t.Context(), l.ref("x"), v1.Platform{})
				if !errors.Is(err, errdefs.ErrInvalidArgument) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error is %v, want one line of class %v", err, errdefs.ErrInvalidArgument)
				}
			})
		}
	}
}

// TestHostileLayoutDirectories has links in the place of a layout's directories: nothing is read from where they lead, and
// nothing written there.
func TestHostileLayoutDirectories(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"blobs", "blobs/sha256", "blobs/sha512", ".hcs-tmp"} {
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			l := newLayout(t)
			l.index(tagged(l.image(host(), 10), "x"))
			path, elsewhere := filepath.Join(l.dir, dir), t.TempDir()
			must(t, os.RemoveAll(path))
			must(t, os.Symlink(elsewhere, path))
			_, _, err := image.OpenImage(t.Context(), l.ref("x"), v1.Platform{})
			_, openErr := image.OpenLayout(l.dir)
			_, createErr := image.Create(t.Context(), l.ref("y"))
			for _, err := range []error{err, openErr, createErr} {
				if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), dir) {
					t.Errorf("error is %v, want one of class %v that names %s", err, errdefs.ErrInvalidArgument, dir)
				}
			}
			if there, err := os.ReadDir(elsewhere); err != nil || len(there) > 0 {
				t.Errorf("elsewhere are %v, %v", there, err)
			}
		})
	}
}

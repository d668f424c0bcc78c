package registry_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/registry"
)

// TestAttemptsAreBounded has a registry be busy for ever: whatever is asked
// for is asked for six times, and no more.
func TestAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	addr := start(t, "", "")
	src, img := newImage(t, amd64)
	if err := push(t.Context(), src, img, parse(t, addr+"/web:1"), registry.Config{}); err != nil {
		t.Fatal(err)
	}
	large := string(img.Manifest.Layers[0].Digest)
	for name, tt := range map[string]struct {
		method, path string
		run          func(context.Context, image.Ref) error
	}{
		"tag": {"HEAD", "/manifests/1", func(ctx context.Context, ref image.Ref) error {
			_, err := registry.Open(ctx, ref, registry.Config{})
			return err
		}},
		"download": {"GET", large, func(ctx context.Context, ref image.Ref) error {
			_, err := pull(ctx, newStore(t), ref, registry.Config{})
			return err
		}},
		"look before an upload": {"HEAD", large, func(ctx context.Context, ref image.Ref) error {
			return push(ctx, src, img, ref, registry.Config{})
		}},
		"manifest": {"PUT", "/manifests/1", func(ctx context.Context, ref image.Ref) error {
			return push(ctx, src, img, ref, registry.Config{})
		}},
		"login": {"GET", "/v2/", func(ctx context.Context, ref image.Ref) error {
			host, _ := ref.Repository()
			_, err := registry.Login(ctx, host, registry.Config{User: user, Password: password, AuthFile: t.TempDir() + "/config.json"})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, addr)
			ref := parse(t, p.addr+"/web:1")
			p.clear(busy(tt.method, tt.path, "0"))
			checkError(t, tt.run(t.Context(), ref), errdefs.ErrUnavailable, "status 503, Service Unavailable")
			if asked := p.with(tt.method, tt.path); len(asked) != 6 {
				t.Errorf("asked %d times, want 6: %q", len(asked), asked)
			}

			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			stop := errors.New("enough of it")
			refuse := busy(tt.method, tt.path, "3600")
			p.clear(func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
				w, goOn := refuse(w, r)
				if !goOn {
					// The answer is on its way to a client that is then to wait an hour.
					time.AfterFunc(50*time.Millisecond, func() { cancel(stop) })
				}
				return w, goOn
			})
			if err := tt.run(ctx, ref); !errors.Is(err, stop) && !errors.Is(err, context.Canceled) {
				t.Errorf("stopped while it waited: %v", err)
			}
			if asked := p.with(tt.method, tt.path); len(asked) != 1 {
				t.Errorf("asked %d times, want once: %q", len(asked), asked)
			}
		})
	}
}

func busy(method, path, after string) func(http.ResponseWriter, *http.Request) (http.ResponseWriter, bool) {
	return func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
		if r.Method != method || !strings.HasSuffix(r.URL.Path, path) {
			return w, true
		}
		w.Header().Set("Retry-After", after)
		w.WriteHeader(http.StatusServiceUnavailable)
		return w, false
	}
}

// TestSharedLayer pulls an image that has a layer of another that is there.
func TestSharedLayer(t *testing.T) {
	t.Parallel()
	p := startProxy(t, start(t, "", ""))
	dir, _ := newTree(t)
	layout := image.Ref{Transport: image.TransportOCI, Path: dir, Tag: "all"}
	copyTree(t, layout, parse(t, p.addr+"/web:all"))
	src, err := registry.Open(t.Context(), parse(t, p.addr+"/web:all"), registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	store := newStore(t)
	var fetched [][]string
	for _, arch := range []string{"amd64", "arm64"} {
		platform := amd64
		platform.Architecture = arch
		img, err := image.Resolve(t.Context(), src, "all", platform)
		if err != nil {
			t.Fatal(err)
		}
		p.clear(nil)
		if _, err := store.Load(t.Context(), src, img, "web:"+arch, image.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
		fetched = append(fetched, p.with("GET", "/blobs/"))
	}
	if len(fetched[0]) != 2 || len(fetched[1]) != 1 || slices.Contains(fetched[0], fetched[1][0]) {
		t.Errorf("the first image took %q, the second, which shares a layer with it, %q", fetched[0], fetched[1])
	}
}

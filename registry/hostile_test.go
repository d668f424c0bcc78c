package registry_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/registry"
)

// TestLies has a registry answer with what a client must not believe.
func TestLies(t *testing.T) {
	t.Parallel()
	addr := start(t, "", "")
	src, img := newImage(t, amd64)
	if err := push(t.Context(), src, img, parse(t, addr+"/web:1"), registry.Config{}); err != nil {
		t.Fatal(err)
	}
	otherSrc, other := newImage(t, amd64)
	if err := push(t.Context(), otherSrc, other, parse(t, addr+"/other:1"), registry.Config{}); err != nil {
		t.Fatal(err)
	}
	large := string(img.Manifest.Layers[0].Digest)
	for name, lie := range map[string]http.HandlerFunc{
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for buf := make([]byte, 1<<20); r.Context().Err() == nil; {
				if _, err := w.Write(buf); err != nil {
					return
				}
			}
		},
		"too long": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, layerSize+1)) },
		"too short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "3")
			_, _ = w.Write([]byte("abc"))
		},
		"another part": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 7-9/10")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte("abc"))
		},
		"a loop": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, addr)
			p.clear(func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
				if !strings.Contains(r.URL.Path, large) {
					return w, true
				}
				lie(w, r)
				return w, false
			})
			store := newStore(t)
			if _, err := pull(t.Context(), store, parse(t, addr+"/other:1"), registry.Config{}); err != nil {
				t.Fatal(err)
			}
			before := tree(t, store.Dir())
			_, err := pull(t.Context(), store, parse(t, p.addr+"/web:1"), registry.Config{})
			if err == nil || !strings.Contains(err.Error(), large) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line that names the blob", err)
			}
			if diff := cmp.Diff(before, tree(t, store.Dir())); diff != "" {
				t.Errorf("the store before (-) and after (+):\n%s", diff)
			}
			t.Log(err)
		})
	}
}

// tree returns what is in a directory: each file's mode, and its digest if it
// is a regular one.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := info.Mode().String()
		if d.Type().IsRegular() {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += " " + string(digest.FromBytes(raw))
		}
		found[strings.TrimPrefix(path, dir)] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestLiesAboutTheRest has the first transfer of a layer break, and what is
// asked for then be answered with lies. Whether the store is to keep what it
// has for later or not, nothing wrong is in it.
func TestLiesAboutTheRest(t *testing.T) {
	t.Parallel()
	addr := start(t, "", "")
	src, img := newImage(t, amd64)
	ref := "/web:1"
	if err := push(t.Context(), src, img, parse(t, addr+ref), registry.Config{}); err != nil {
		t.Fatal(err)
	}
	large := "/blobs/" + string(img.Manifest.Layers[0].Digest)
	const half = layerSize / 2
	part := func(header string, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", header)
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(body)
		}
	}
	rest := fmt.Sprintf("bytes %d-%d/%d", half, layerSize-1, layerSize)
	for name, tt := range map[string]struct {
		lie  http.HandlerFunc
		want error
		keep bool // of what was right
	}{
		"another part":          {part(fmt.Sprintf("bytes 0-%d/%d", half-1, layerSize), make([]byte, half)), errdefs.ErrUnavailable, true},
		"a part of no number":   {part("bytes x-y/z", make([]byte, half)), errdefs.ErrUnavailable, true},
		"other content":         {part(rest, make([]byte, half)), errdefs.ErrDataLoss, false},
		"too much":              {part(rest, make([]byte, half+1)), errdefs.ErrDataLoss, false},
		"too little":            {part(rest, make([]byte, half-1)), errdefs.ErrUnavailable, true},
		"everything, but other": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, layerSize)) }, errdefs.ErrDataLoss, false},
		"no such range":         {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusRequestedRangeNotSatisfiable) }, nil, true},
	} {
		for _, resume := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, resume %t", name, resume), func(t *testing.T) {
				t.Parallel()
				p := startProxy(t, addr)
				p.clear(func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
					switch {
					case !strings.Contains(r.URL.Path, large):
						return w, true
					case r.Header.Get("Range") == "":
						return &cutter{w, half, func([]byte) { panic(http.ErrAbortHandler) }}, true
					}
					tt.lie(w, r)
					return w, false
				})
				store := newStore(t)
				if err := store.Verify(t.Context()); err != nil {
					t.Fatal(err)
				}
				before := tree(t, store.Dir())
				_, err := load(t.Context(), store, parse(t, p.addr+ref), image.LoadOptions{Resume: resume})
				if err == nil || tt.want != nil && !errors.Is(err, tt.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("got %v, want one line of class %v", err, tt.want)
				}
				t.Log(err)
				if diff := cmp.Diff(before, tree(t, store.Dir())); !resume && diff != "" {
					t.Errorf("the store before (-) and after (+):\n%s", diff)
				}
				// Of another blob, which was on its way meanwhile, there may be a part in any case.
				left := slices.DeleteFunc(parts(t, store), func(name string) bool {
					return !strings.HasSuffix(name, img.Manifest.Layers[0].Digest.Encoded())
				})
				if resume && (len(left) > 0) != tt.keep {
					t.Errorf("parts in the store: %q", left)
				}
				_, err = load(t.Context(), store, parse(t, addr+ref), image.LoadOptions{Resume: resume})
				if resume && errors.Is(err, errdefs.ErrDataLoss) { // a lie was in what was kept, and is no more
					_, err = load(t.Context(), store, parse(t, addr+ref), image.LoadOptions{Resume: resume})
				}
				if err == nil {
					err = store.Verify(t.Context())
				}
				if err != nil {
					t.Errorf("the next pull, from an honest registry: %v", err)
				}
			})
		}
	}
}

// TestHugeManifest has a tag stand for more than a manifest may have.
func TestHugeManifest(t *testing.T) {
	t.Parallel()
	addr := start(t, "", "")
	src, img := newImage(t, amd64)
	if err := push(t.Context(), src, img, parse(t, addr+"/web:1"), registry.Config{}); err != nil {
		t.Fatal(err)
	}
	endless := func(w http.ResponseWriter, r *http.Request) {
		for buf := make([]byte, 1<<20); r.Context().Err() == nil; {
			if _, err := w.Write(buf); err != nil {
				return
			}
		}
	}
	for name, header := range map[string]http.Header{
		"it says so":                    {"Content-Length": {"5000000000"}, "Docker-Content-Digest": {string(img.Descriptor.Digest)}},
		"it says little":                {"Content-Length": {"100"}, "Docker-Content-Digest": {string(img.Descriptor.Digest)}},
		"it says nothing of the digest": {"Content-Length": {"100"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, addr)
			p.clear(func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
				if !strings.Contains(r.URL.Path, "/manifests/") {
					return w, true
				}
				w.Header().Set("Content-Type", v1.MediaTypeImageManifest)
				if r.Method == http.MethodHead {
					maps.Copy(w.Header(), header)
				} else {
					endless(w, r)
				}
				return w, false
			})
			store := newStore(t)
			before := tree(t, store.Dir())
			_, err := pull(t.Context(), store, parse(t, p.addr+"/web:1"), registry.Config{})
			if err == nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line", err)
			}
			t.Log(err)
			if diff := cmp.Diff(before, tree(t, store.Dir())); diff != "" {
				t.Errorf("the store before (-) and after (+):\n%s", diff)
			}
		})
	}
}

// TestRetryAfter has a registry say when to come back, in both forms that RFC
// 9110, section 10.2.3, has for it.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	addr := start(t, "", "")
	src, img := newImage(t, amd64)
	if err := push(t.Context(), src, img, parse(t, addr+"/web:1"), registry.Config{}); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		status int
		value  func() string
	}{
		"busy, in seconds":     {http.StatusServiceUnavailable, func() string { return "2" }},
		"too many, in seconds": {http.StatusTooManyRequests, func() string { return "2" }},
		"busy, until a time":   {http.StatusServiceUnavailable, func() string { return time.Now().Add(3 * time.Second).UTC().Format(http.TimeFormat) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, addr)
			var refused, again time.Time
			p.clear(func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
				switch {
				case r.Method != http.MethodHead:
				case refused.IsZero():
					refused = time.Now()
					w.Header().Set("Retry-After", tt.value())
					w.WriteHeader(tt.status)
					return w, false
				case again.IsZero():
					again = time.Now()
				}
				return w, true
			})
			if _, err := pull(t.Context(), newStore(t), parse(t, p.addr+"/web:1"), registry.Config{}); err != nil {
				t.Fatal(err)
			}
			if waited := again.Sub(refused); waited < 1500*time.Millisecond {
				t.Errorf("asked again after %v", waited)
			}
		})
	}
}

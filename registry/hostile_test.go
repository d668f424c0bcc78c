package registry_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

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
			_, err := pull(t.Context(), store, parse(t, p.addr+"/web:1"), registry.Config{})
			if err == nil || !strings.Contains(err.Error(), large) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line that names the blob", err)
			}
			if left := parts(t, store); len(left) > 0 {
				t.Errorf("left in the store: %q", left)
			}
			t.Log(err)
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

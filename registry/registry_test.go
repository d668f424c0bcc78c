package registry_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/registry"
)

var amd64 = v1.Platform{OS: "linux", Architecture: "amd64"}

func TestPushThenPull(t *testing.T) {
	t.Parallel()
	p := startProxy(t, start(t, "", ""))
	src, img := newImage(t, amd64)
	ref := parse(t, p.addr+"/a/web:1")
	var done atomic.Int64
	config := registry.Config{Progress: func(l image.Progress) {
		if l.Done == l.Total {
			done.Add(1)
		}
	}}
	if err := push(t.Context(), src, img, ref, config); err != nil {
		t.Fatal(err)
	}
	if done.Load() < 2 {
		t.Errorf("%d layers were reported done, want 2", done.Load())
	}

	p.clear(nil)
	store := newStore(t)
	pulled, err := pull(t.Context(), store, ref, registry.Config{Have: store})
	if err != nil {
		t.Fatal(err)
	}
	if pulled.Descriptor.Digest != img.Descriptor.Digest {
		t.Errorf("pushed %s, pulled %s", img.Descriptor.Digest, pulled.Descriptor.Digest)
	}
	if got := p.with("GET", "/blobs/"); len(got) != 3 {
		t.Errorf("the first pull fetched %q, want three blobs", got)
	}

	p.clear(nil)
	if _, err := pull(t.Context(), store, ref, registry.Config{Have: store}); err != nil {
		t.Fatal(err)
	}
	if got := p.with(""); len(got) != 1 || !strings.HasPrefix(got[0], "HEAD /v2/a/web/manifests/1") {
		t.Errorf("the second pull asked for %q, want no more than what the tag stands for", got)
	}

	p.clear(nil)
	if err := push(t.Context(), store, pulled, ref, registry.Config{}); err != nil {
		t.Fatal(err)
	}
	if got := p.with("POST"); len(got) > 0 {
		t.Errorf("the second push began uploads: %q", got)
	}

	ref = parse(t, fmt.Sprintf("%s/a/web@%s", p.addr, img.Descriptor.Digest))
	if pulled, err = pull(t.Context(), newStore(t), ref, registry.Config{}); err != nil || pulled.ID() != img.ID() {
		t.Errorf("pull by digest: %v, %v", pulled, err)
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	addr := startWithAuth(t)
	src, img := newImage(t, amd64)
	ref := parse(t, addr+"/web:1")
	if err := push(t.Context(), src, img, ref, registry.Config{User: user, Password: password}); err != nil {
		t.Fatal(err)
	}
	auths := func(login string) string {
		file := filepath.Join(t.TempDir(), "config.json")
		write(t, file, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, addr, base64.StdEncoding.EncodeToString([]byte(login))))
		return file
	}
	empty := filepath.Join(t.TempDir(), "none.json")
	for _, tt := range []struct {
		name   string
		config registry.Config
		want   string // empty if it is to go well
	}{
		{"user", registry.Config{User: user, Password: password}, ""},
		{"file", registry.Config{AuthFile: auths(user + ":" + password)}, ""},
		{"wrong password", registry.Config{User: user, Password: "guess"}, `unauthorized: it does not let user "tester" have`},
		{"wrong file", registry.Config{AuthFile: auths("someone:else")}, `unauthorized: it does not let user "someone" have`},
		{"none", registry.Config{AuthFile: empty}, "unauthorized: there are no credentials for it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := pull(t.Context(), newStore(t), ref, tt.config)
			checkError(t, err, errdefs.ErrUnauthenticated, tt.want)
			err = push(t.Context(), src, img, ref, tt.config)
			checkError(t, err, errdefs.ErrUnauthenticated, tt.want)
		})
	}
}

// checkError wants one line with some words and a class, or no error if there
// are no words.
func checkError(t *testing.T, err, class error, words string) {
	t.Helper()
	switch {
	case words == "" && err != nil:
		t.Error(err)
	case words != "" && (!errors.Is(err, class) || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n")):
		t.Errorf("got %v, want one line with %q, of class %v", err, words, class)
	}
}

func TestNotThere(t *testing.T) {
	t.Parallel()
	addr := start(t, "", "")
	src, img := newImage(t, amd64)
	if err := push(t.Context(), src, img, parse(t, addr+"/web:1"), registry.Config{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"web:2":                                 `tag "2" not found in ` + addr + "/web",
		"bad:1":                                 `tag "1" not found in ` + addr + "/bad",
		"web@" + string(digest.FromString("x")): "manifest " + string(digest.FromString("x")) + " not found in",
	} {
		_, err := registry.Open(t.Context(), parse(t, addr+"/"+name), registry.Config{})
		checkError(t, err, errdefs.ErrNotFound, want)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	ref := parse(t, strings.TrimPrefix(server.URL, "http://")+"/web")
	server.Close()
	_, err := registry.Open(t.Context(), ref, registry.Config{})
	checkError(t, err, errdefs.ErrUnavailable, "refused")
	src, img := newImage(t, amd64)
	checkError(t, push(t.Context(), src, img, ref, registry.Config{}), errdefs.ErrUnavailable, "refused")
}

// TestBrokenDownload has the first transfer of the large layer break half way.
func TestBrokenDownload(t *testing.T) {
	t.Parallel()
	addr := start(t, "", "")
	src, img := newImage(t, amd64)
	large := "/blobs/" + string(img.Manifest.Layers[0].Digest)
	if err := push(t.Context(), src, img, parse(t, addr+"/web:1"), registry.Config{}); err != nil {
		t.Fatal(err)
	}
	abort := func([]byte) { panic(http.ErrAbortHandler) }
	for name, tt := range map[string]struct {
		meddle func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool)
		ranged bool
	}{
		"cut": {func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
			if r.Header.Get("Range") == "" {
				w = &cutter{w, layerSize / 2, abort}
			}
			return w, true
		}, true},
		"cut again and again": {func(w http.ResponseWriter, _ *http.Request) (http.ResponseWriter, bool) {
			return &cutter{w, layerSize / 10, abort}, true
		}, true},
		"stalled": {func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
			if r.Header.Get("Range") == "" {
				w = &cutter{w, layerSize / 2, func([]byte) { <-r.Context().Done() }}
			}
			return w, true
		}, true},
		"a registry that knows no ranges": {func() func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
			var times atomic.Int64
			return func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
				r.Header.Del("Range")
				if times.Add(1) < 3 {
					w = &cutter{w, layerSize / 2, abort}
				}
				return w, true
			}
		}(), true},
		"busy": {func() func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
			var times atomic.Int64
			return func(w http.ResponseWriter, _ *http.Request) (http.ResponseWriter, bool) {
				if times.Add(1) < 3 {
					w.WriteHeader(http.StatusServiceUnavailable)
					return w, false
				}
				return w, true
			}
		}(), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, addr)
			p.clear(func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
				if r.Method == http.MethodGet && strings.Contains(r.URL.Path, large) {
					return tt.meddle(w, r)
				}
				return w, true
			})
			var config registry.Config
			if name == "stalled" { // what comes slowly elsewhere is not to be asked for again
				config.Stall = 200 * time.Millisecond
			}
			pulled, err := pull(t.Context(), newStore(t), parse(t, p.addr+"/web:1"), config)
			if err != nil {
				t.Fatal(err)
			}
			if pulled.Descriptor.Digest != img.Descriptor.Digest {
				t.Errorf("pushed %s, pulled %s", img.Descriptor.Digest, pulled.Descriptor.Digest)
			}
			if got := p.with(large, "bytes="); tt.ranged != (len(got) > 0) {
				t.Errorf("requests with a range: %q", got)
			}
			t.Log(p.with("GET", large))
		})
	}
}

// TestPullAfterFailedPull has a pull end half way, and the next go on there,
// with and without somebody who unpacks.
func TestPullAfterFailedPull(t *testing.T) {
	t.Parallel()
	addr := start(t, "", "")
	src, img := newImage(t, amd64)
	if err := push(t.Context(), src, img, parse(t, addr+"/web:1"), registry.Config{}); err != nil {
		t.Fatal(err)
	}
	large := "/blobs/" + string(img.Manifest.Layers[0].Digest)
	unpack := func(_ context.Context, _ int, _ digest.Digest, open func() (io.ReadCloser, error)) error {
		r, err := open()
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(io.Discard, r)
		return err
	}
	for name, opts := range map[string]image.LoadOptions{
		"copy":   {Resume: true},
		"unpack": {Resume: true, OnLayer: unpack},
	} {
		for kind, spoil := range map[string]bool{"good": false, "spoilt": true} {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				p := startProxy(t, addr)
				ref := parse(t, p.addr+"/web:1")
				store := newStore(t)
				half := func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
					switch {
					case !strings.Contains(r.URL.Path, large):
					case r.Header.Get("Range") == "":
						w = &cutter{w, layerSize / 2, func([]byte) { panic(http.ErrAbortHandler) }}
					default:
						panic(http.ErrAbortHandler)
					}
					return w, true
				}
				p.clear(half)
				if _, err := load(t.Context(), store, ref, opts); !errors.Is(err, errdefs.ErrUnavailable) {
					t.Fatalf("a pull that breaks: %v", err)
				}
				if spoil {
					spoilPart(t, store)
				}
				p.clear(nil)
				_, err := load(t.Context(), store, ref, opts)
				if got := p.with("GET", large); len(got) != 1 || !strings.Contains(got[0], "bytes=2") {
					t.Errorf("the next pull asked for %q, want the second half", got)
				}
				if spoil {
					checkError(t, err, errdefs.ErrDataLoss, "its content has digest")
					_, err = load(t.Context(), store, ref, opts)
				}
				if err == nil {
					err = store.Verify(t.Context())
				}
				if err != nil {
					t.Fatal(err)
				}
				if left := parts(t, store); len(left) > 0 {
					t.Errorf("left in the store: %q", left)
				}
			})
		}
	}
}

func TestHopelessDownload(t *testing.T) {
	t.Parallel()
	p := startProxy(t, start(t, "", ""))
	src, img := newImage(t, amd64)
	ref := parse(t, p.addr+"/web:1")
	if err := push(t.Context(), src, img, ref, registry.Config{}); err != nil {
		t.Fatal(err)
	}
	large := "/blobs/" + string(img.Manifest.Layers[0].Digest)
	meddle := func(then func([]byte)) func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
		return func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
			if strings.Contains(r.URL.Path, large) {
				w = &cutter{w, 100, then}
			}
			return w, true
		}
	}

	p.clear(meddle(func([]byte) { panic(http.ErrAbortHandler) }))
	_, err := pull(t.Context(), newStore(t), ref, registry.Config{})
	checkError(t, err, errdefs.ErrUnavailable, "it broke off at 600 of 4194304 bytes")

	p.clear(func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
		return meddle(func(rest []byte) {
			rest[0] ^= 1
			_, _ = w.Write(rest)
		})(w, r)
	})
	_, err = pull(t.Context(), newStore(t), ref, registry.Config{})
	checkError(t, err, errdefs.ErrDataLoss, "its content has digest")

	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("enough of it")
	p.clear(meddle(func([]byte) { cancel(stop); panic(http.ErrAbortHandler) }))
	if _, err = pull(ctx, newStore(t), ref, registry.Config{}); !errors.Is(err, stop) {
		t.Errorf("a pull that was stopped: %v", err)
	}
}

func TestBrokenUpload(t *testing.T) {
	t.Parallel()
	p := startProxy(t, start(t, "", ""))
	src, img := newImage(t, amd64)
	var times atomic.Int64
	p.clear(func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
		if r.Method != http.MethodPut || times.Add(1) > 2 {
			return w, true
		}
		_, _ = io.CopyN(io.Discard, r.Body, 500)
		panic(http.ErrAbortHandler)
	})
	ref := parse(t, p.addr+"/web:1")
	if err := push(t.Context(), src, img, ref, registry.Config{}); err != nil {
		t.Fatal(err)
	}
	if pulled, err := pull(t.Context(), newStore(t), ref, registry.Config{}); err != nil || pulled.ID() != img.ID() {
		t.Errorf("%v, %v", pulled, err)
	}
}

// TestSourceBreaks has our own side fail: that is not tried again.
func TestSourceBreaks(t *testing.T) {
	t.Parallel()
	p := startProxy(t, start(t, "", ""))
	src, img := newImage(t, amd64)
	bad := &badSource{Source: src}
	err := push(t.Context(), bad, img, parse(t, p.addr+"/web:1"), registry.Config{})
	checkError(t, err, errdefs.ErrDataLoss, "disk gone")
	if n := bad.opened.Load(); n > 2 {
		t.Errorf("two layers were opened %d times", n)
	}
}

type badSource struct {
	image.Source
	opened atomic.Int64
}

func (b *badSource) Blob(context.Context, v1.Descriptor) (io.ReadCloser, error) {
	b.opened.Add(1)
	return nil, errdefs.ErrDataLoss.WithMessage("disk gone")
}

func TestMount(t *testing.T) {
	t.Parallel()
	p := startProxy(t, start(t, "", ""))
	src, img := newImage(t, amd64)
	if err := push(t.Context(), src, img, parse(t, p.addr+"/a:1"), registry.Config{}); err != nil {
		t.Fatal(err)
	}
	for to, from := range map[string]string{"b": "a", "c": "not/there"} {
		p.clear(nil)
		ref := parse(t, p.addr+"/"+to+":1")
		err := push(t.Context(), src, img, ref, registry.Config{Mount: func(digest.Digest) string { return from }})
		if err != nil {
			t.Fatal(err)
		}
		if got := p.with("POST", "mount from "+from); len(got) != 3 {
			t.Errorf("mounts from %s: %q, want three", from, got)
		}
		if got := p.with("PUT", "/blobs/"); (len(got) == 0) != (from == "a") {
			t.Errorf("uploads with mounts from %s: %q", from, got)
		}
		if pulled, err := pull(t.Context(), newStore(t), ref, registry.Config{}); err != nil || pulled.ID() != img.ID() {
			t.Errorf("%v, %v", pulled, err)
		}
	}
}

func TestIndex(t *testing.T) {
	t.Parallel()
	addr := start(t, "", "")
	ref := parse(t, addr+"/web:all")
	var index v1.Index
	index.SchemaVersion, index.MediaType = 2, v1.MediaTypeImageIndex
	want := map[string]digest.Digest{}
	for _, arch := range []string{"amd64", "arm64"} {
		src, img := newImage(t, v1.Platform{OS: "linux", Architecture: arch})
		if err := push(t.Context(), src, img, parse(t, addr+"/web:"+arch), registry.Config{}); err != nil {
			t.Fatal(err)
		}
		desc := img.Descriptor
		desc.Annotations = nil
		desc.Platform = &v1.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, desc)
		want[arch] = desc.Digest
	}
	putIndex(t, ref, index)
	src, err := registry.Open(t.Context(), ref, registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for arch, d := range want {
		img, err := image.Resolve(t.Context(), src, ref.Selector(), v1.Platform{OS: "linux", Architecture: arch})
		if err != nil || img.Descriptor.Digest != d {
			t.Errorf("%s: %v, %v, want %s", arch, img, err, d)
		}
	}
	_, err = image.Resolve(t.Context(), src, ref.Selector(), v1.Platform{OS: "linux", Architecture: "s390x"})
	checkError(t, err, errdefs.ErrNotFound, "no image for linux/s390x")
}

// TestTLS has a certificate that only those accept who know its authority.
func TestTLS(t *testing.T) {
	t.Parallel()
	addr := start(t, "", "")
	front := startTLS(t, addr)
	src, img := newImage(t, amd64)
	ref := parse(t, front.addr+"/web:1")
	good := registry.Config{Protocol: registry.HTTPS, TLS: &tls.Config{RootCAs: front.roots}}
	if err := push(t.Context(), src, img, ref, good); err != nil {
		t.Fatal(err)
	}
	if pulled, err := pull(t.Context(), newStore(t), ref, good); err != nil || pulled.ID() != img.ID() {
		t.Errorf("%v, %v", pulled, err)
	}
	_, err := registry.Open(t.Context(), ref, registry.Config{Protocol: registry.HTTPS})
	checkError(t, err, errdefs.ErrUnavailable, "certificate")
	_, err = registry.Open(t.Context(), ref, registry.Config{Protocol: registry.HTTPS, TLS: &tls.Config{InsecureSkipVerify: true}}) //nolint:gosec // that is what is tested
	checkError(t, err, nil, "")
}

// TestPlainHTTP has a registry without TLS be asked for it, and one with TLS at
// an address of this machine, which is asked in HTTP.
func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	addr := start(t, "", "")
	_, err := registry.Open(t.Context(), parse(t, addr+"/web:1"), registry.Config{Protocol: registry.HTTPS})
	checkError(t, err, errdefs.ErrUnavailable, "it speaks plain HTTP, which has to be asked for")
	_, err = registry.Open(t.Context(), parse(t, startTLS(t, addr).addr+"/web:1"), registry.Config{})
	checkError(t, err, errdefs.ErrUnknown, "it may be HTTPS that it speaks")
	for _, p := range []registry.Protocol{registry.Auto, registry.HTTP} {
		_, err := registry.Open(t.Context(), parse(t, addr+"/web:1"), registry.Config{Protocol: p})
		checkError(t, err, errdefs.ErrNotFound, `tag "1" not found in `)
	}
}

// TestLoopback has names of this machine, which are asked in HTTP unless told
// otherwise, and names that only look like it.
func TestLoopback(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1": true, "127.9.9.9:80": true, "[::1]": true, "[::1]:5000": true,
		"localhost.example.com": false, "example.com:5000": false, "10.0.0.1:5000": false, "0.0.0.0:5000": false, "127.0.0.1.example.com": false,
		"[fe80::1]:5000": false, "localhosts:5000": false, "": false,
	} {
		if got := registry.IsLoopback(host); got != want {
			t.Errorf("%q is this machine: %t, want %t", host, got, want)
		}
	}
}

// TestManyAtOnce pulls into one store from several goroutines.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	p := startProxy(t, start(t, "", ""))
	src, img := newImage(t, amd64)
	ref := parse(t, p.addr+"/web:1")
	if err := push(t.Context(), src, img, ref, registry.Config{}); err != nil {
		t.Fatal(err)
	}
	p.clear(nil)
	store := newStore(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := pull(t.Context(), store, ref, registry.Config{Have: store}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := p.with("GET", string(img.Manifest.Layers[0].Digest)); len(got) != 1 {
		t.Errorf("four pulls fetched a layer %d times", len(got))
	}
}

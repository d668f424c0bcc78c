package registry_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/registry"
)

func TestMain(m *testing.M) {
	registry.SetFirstPause(2 * time.Millisecond)
	_ = os.Setenv("DOCKER_CONFIG", "testdata/none") // nobody's own credentials
	os.Exit(m.Run())
}

const (
	user     = "tester"
	password = "secret"
	// what htpasswd -nbB says of the two
	htpasswd = "tester:$2y$04$oJt2ux1siktcBI6cc/p6JeWcwM6JOGyO.pZVktEEkgMpGeh2diPRa"
)

var listening = regexp.MustCompile(`listening on ([0-9.:]+)`)

// start runs a registry, with more of its configuration if the test wants
// that, and returns its address.
func start(t *testing.T, http, more string) string {
	t.Helper()
	program := testenv.NeedCommand(t, "docker-registry")[0]
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yml")
	config := fmt.Sprintf("version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: '127.0.0.1:0'%s}\n%s\n",
		filepath.Join(dir, "data"), http, more)
	write(t, file, config)
	cmd := exec.Command(program, "serve", file)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return address(t, stderr)
}

// address reads where a registry listens, and then what else it says.
func address(t *testing.T, stderr io.Reader) string {
	t.Helper()
	lines := bufio.NewScanner(stderr)
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			go func() { _, _ = io.Copy(io.Discard, stderr) }()
			return m[1]
		}
	}
	t.Fatalf("the registry did not start:\n%s", strings.Join(said, "\n"))
	return ""
}

func startWithAuth(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "htpasswd")
	write(t, file, htpasswd+"\n")
	return start(t, "", fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}", file))
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A proxy stands before a registry, notes requests, and does what a test
// wants to some of them.
type proxy struct {
	addr string

	mu       sync.Mutex
	requests []string
	meddle   func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool)
}

func startProxy(t *testing.T, registry string) *proxy {
	t.Helper()
	p := &proxy{}
	target := &url.URL{Scheme: "http", Host: registry}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // uploads go to where the registry says
		},
		FlushInterval: -1,
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		note := r.Method + " " + r.URL.Path
		if r.Header.Get("Range") != "" {
			note += " " + r.Header.Get("Range")
		}
		if r.URL.Query().Get("mount") != "" {
			note += " mount from " + r.URL.Query().Get("from")
		}
		p.requests = append(p.requests, note)
		meddle := p.meddle
		p.mu.Unlock()
		if meddle != nil {
			var goOn bool
			if w, goOn = meddle(w, r); !goOn {
				return
			}
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p.addr = strings.TrimPrefix(server.URL, "http://")
	return p
}

// A front speaks TLS before a registry.
type front struct {
	addr  string
	roots *x509.CertPool
}

func startTLS(t *testing.T, registry string) front {
	t.Helper()
	server := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: registry})
		r.SetXForwarded()
		r.Out.Host = r.In.Host
	}})
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return front{strings.TrimPrefix(server.URL, "https://"), roots}
}

// clear forgets the requests and sets what is done to later ones.
func (p *proxy) clear(meddle func(http.ResponseWriter, *http.Request) (http.ResponseWriter, bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests, p.meddle = nil, meddle
}

// with returns the requests that have all the words.
func (p *proxy) with(words ...string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.requests), func(r string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(r, w) })
	})
}

// A cutter passes some bytes of an answer on and then does something else.
type cutter struct {
	http.ResponseWriter
	left int
	then func(p []byte)
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left])
	rest := p[c.left:]
	c.left = 1 << 40
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	c.then(rest)
	return len(p), nil
}

func (c *cutter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

const layerSize = 4 << 20

// newImage returns an image of two layers of random bytes.
func newImage(t *testing.T, platform v1.Platform) (image.Source, *image.Image) {
	t.Helper()
	dir := t.TempDir()
	config := v1.Image{Platform: platform, RootFS: v1.RootFS{Type: "layers"}}
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest}
	m.SchemaVersion = 2
	for _, size := range []int{layerSize, 1000} {
		content := make([]byte, size)
		_, _ = rand.Read(content)
		desc := put(t, dir, v1.MediaTypeImageLayer, content)
		m.Layers = append(m.Layers, desc)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, desc.Digest)
	}
	m.Config = put(t, dir, v1.MediaTypeImageConfig, encode(t, config))
	desc := put(t, dir, v1.MediaTypeImageManifest, encode(t, m))
	desc.Annotations = map[string]string{v1.AnnotationRefName: "latest"}
	index := v1.Index{Manifests: []v1.Descriptor{desc}}
	index.SchemaVersion = 2
	write(t, filepath.Join(dir, v1.ImageIndexFile), string(encode(t, index)))
	write(t, filepath.Join(dir, v1.ImageLayoutFile), `{"imageLayoutVersion":"1.0.0"}`)
	src, img, err := image.OpenImage(t.Context(), image.Ref{Transport: image.TransportOCI, Path: dir, Tag: "latest"}, v1.Platform{})
	if err != nil {
		t.Fatal(err)
	}
	return src, img
}

func encode(t *testing.T, value any) []byte {
	t.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func put(t *testing.T, dir, mediaType string, content []byte) v1.Descriptor {
	t.Helper()
	d := digest.FromBytes(content)
	blobs := filepath.Join(dir, v1.ImageBlobsDir, string(d.Algorithm()))
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(blobs, d.Encoded()), string(content))
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

func parse(t *testing.T, s string) image.Ref {
	t.Helper()
	ref, err := image.ParseRegistryRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func push(ctx context.Context, src image.Source, img *image.Image, ref image.Ref, c registry.Config) error {
	to, err := registry.Create(ctx, ref, c)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := to.Add(ctx, src, img, ref.Tag); err != nil {
		return err
	}
	return to.Commit(ctx)
}

// pull brings an image into a store, and reads every blob of it again.
func pull(ctx context.Context, store *image.Store, ref image.Ref, c registry.Config) (*image.Image, error) {
	img, err := fetch(ctx, store, ref, c, image.LoadOptions{})
	if err != nil {
		return nil, err
	}
	return img, store.Verify(ctx)
}

func load(ctx context.Context, store *image.Store, ref image.Ref, opts image.LoadOptions) (*image.Image, error) {
	return fetch(ctx, store, ref, registry.Config{}, opts)
}

// parts returns the files of blobs that are not whole.
func parts(t *testing.T, store *image.Store) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(store.Dir(), ".hcs-tmp", "sha256-*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// spoilPart changes the only part of a blob in a store.
func spoilPart(t *testing.T, store *image.Store) {
	t.Helper()
	files := parts(t, store)
	if len(files) != 1 {
		t.Fatalf("parts in the store: %q, want one", files)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[0] ^= 1
	write(t, files[0], string(raw))
}

func fetch(ctx context.Context, store *image.Store, ref image.Ref, c registry.Config, opts image.LoadOptions) (*image.Image, error) {
	src, err := registry.Open(ctx, ref, c)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	img, err := image.Resolve(ctx, src, ref.Selector(), v1.Platform{})
	if err != nil {
		return nil, err
	}
	return store.Load(ctx, src, img, "pulled:latest", opts)
}

func newStore(t *testing.T) *image.Store {
	t.Helper()
	store, err := image.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// putIndex puts an index into a repository, which a target does not do.
func putIndex(t *testing.T, ref image.Ref, index v1.Index) {
	t.Helper()
	host, name := ref.Repository()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, fmt.Sprintf("http://%s/v2/%s/manifests/%s", host, name, ref.Tag), bytes.NewReader(encode(t, index)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", v1.MediaTypeImageIndex)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.Status)
	}
}

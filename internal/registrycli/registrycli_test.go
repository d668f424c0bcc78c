package registrycli_test

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/internal/registrycli"
)

// TestMain has this program be hcs-registry for its own tests.
func TestMain(m *testing.M) {
	if os.Getenv("HCS_TEST_BE_HCS_REGISTRY") != "" {
		os.Exit(registrycli.Main())
	}
	os.Exit(m.Run())
}

// stranger is a host that is not this machine, and that only a proxy finds.
// The certificate of httptest's servers is for it.
const stranger = "example.com"

// TestProxy has a registry be reached through a proxy alone, which is what the
// environment says.
func TestProxy(t *testing.T) {
	t.Parallel()
	registry := serveImage(t)
	plain := httptest.NewServer(registry)
	t.Cleanup(plain.Close)
	secure := httptest.NewTLSServer(registry)
	t.Cleanup(secure.Close)
	authority := filepath.Join(t.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(authority, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		flags []string
		asked string // of the proxy
		want  string // in the message, if it is to fail
	}{
		{"HTTP where it is asked for", []string{"--plain-http"}, "GET " + stranger, ""},
		{"HTTPS with its authority", []string{"--tls-ca", authority}, "CONNECT " + stranger + ":443", ""},
		{"HTTPS with any certificate", []string{"--tls-verify=false"}, "CONNECT " + stranger + ":443", ""},
		{"HTTPS of an unknown authority", nil, "CONNECT " + stranger + ":443", "certificate signed by unknown authority"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := startForward(t, plain.Listener.Addr().String(), secure.Listener.Addr().String())
			layout := filepath.Join(t.TempDir(), "layout")
			args := append([]string{"image", "copy", "docker://" + stranger + "/web:1", "oci:" + layout + ":1"}, tt.flags...)
			out, err := hcs(t, []string{"HTTP_PROXY=" + p.url, "HTTPS_PROXY=" + p.url}, args...)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(out, tt.want)) {
				t.Errorf("%v: %s", err, out)
			}
			if asked := p.all(); !strings.Contains(asked, tt.asked) || strings.Contains(asked, "CONNECT") != strings.HasPrefix(tt.asked, "CONNECT") {
				t.Errorf("the proxy was asked %q, want %q", asked, tt.asked)
			}
		})
	}
}

// TestLoopback speaks HTTP to this machine's own addresses and goes around the
// proxy, unless it is told to speak HTTPS.
func TestLoopback(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(serveImage(t))
	t.Cleanup(server.Close)
	addr := server.Listener.Addr().String()
	p := startForward(t, addr, addr)
	env := []string{"HTTP_PROXY=" + p.url, "HTTPS_PROXY=" + p.url}
	layout := "oci:" + filepath.Join(t.TempDir(), "layout") + ":1"
	if out, err := hcs(t, env, "image", "copy", "docker://"+addr+"/web:1", layout); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	out, err := hcs(t, env, "image", "copy", "--plain-http=false", "docker://"+addr+"/web:1", layout)
	if err == nil || !strings.Contains(out, "it speaks plain HTTP, which has to be asked for") {
		t.Errorf("%v: %s", err, out)
	}
	if asked := p.all(); asked != "" {
		t.Errorf("the proxy was asked %q", asked)
	}
}

// TestFlags has flags that lead nowhere.
func TestFlags(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, flags := range map[string][]string{
		empty + " has none":          {"--tls-ca", empty},
		"no such file or directory":  {"--tls-ca", empty + ".not"},
		"creds: it is user:password": {"--creds", ":x"},
	} {
		args := append([]string{"image", "copy", "docker://127.0.0.1:1/x", "oci:" + t.TempDir() + "/x"}, flags...)
		if out, err := hcs(t, nil, args...); err == nil || !strings.Contains(out, want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%q: %v: %s", flags, err, out)
		}
	}
}

// hcs runs this program as hcs-registry.
func hcs(t *testing.T, env []string, args ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append([]string{"HCS_TEST_BE_HCS_REGISTRY=1", "DOCKER_CONFIG=" + t.TempDir(), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir()}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// serveImage returns what a registry says that has one image without layers.
func serveImage(t *testing.T) http.Handler {
	t.Helper()
	config := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}, RootFS: v1.RootFS{Type: "layers"}}
	rawConfig := encode(t, config)
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Layers: []v1.Descriptor{}}
	m.SchemaVersion = 2
	m.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromBytes(rawConfig), Size: int64(len(rawConfig))}
	raw := encode(t, m)
	serve := func(mediaType string, content []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			w.Header().Set("Docker-Content-Digest", string(digest.FromBytes(content)))
			_, _ = w.Write(content)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/v2/web/manifests/1", serve(v1.MediaTypeImageManifest, raw))
	mux.Handle("/v2/web/manifests/"+string(digest.FromBytes(raw)), serve(v1.MediaTypeImageManifest, raw))
	mux.Handle("/v2/web/blobs/"+string(m.Config.Digest), serve("application/octet-stream", rawConfig))
	return mux
}

func encode(t *testing.T, value any) []byte {
	t.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// A forward is a proxy, in the sense of RFC 9110, section 7.6, for the one
// registry that there is.
type forward struct {
	url    string
	secure string // where tunnels lead

	mu    sync.Mutex
	asked []string
}

func startForward(t *testing.T, plain, secure string) *forward {
	t.Helper()
	p := &forward{secure: secure}
	pass := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: plain}) }}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked = append(p.asked, r.Method+" "+r.Host)
		p.mu.Unlock()
		if r.Method == http.MethodConnect {
			if err := p.tunnel(w); err != nil {
				t.Error(err)
			}
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func (p *forward) tunnel(w http.ResponseWriter) error {
	to, err := net.Dial("tcp", p.secure)
	if err != nil {
		return err
	}
	defer to.Close()
	w.WriteHeader(http.StatusOK)
	from, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer from.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(to, from) // either end may go first
		_ = to.(*net.TCPConn).CloseWrite()
	})
	_, _ = io.Copy(from, to)
	err = from.Close()
	wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *forward) all() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.asked, "\n")
}

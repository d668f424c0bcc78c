package registry_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/registry"
)

// TestCredentialHelper has a program give the credentials, as docker's
// configuration says (https://github.com/docker/docker-credential-helpers).
func TestCredentialHelper(t *testing.T) {
	addr := startWithAuth(t)
	src, img := newImage(t, amd64)
	ref := parse(t, addr+"/web:1")
	dir := t.TempDir()
	helper := filepath.Join(dir, "docker-credential-hcstest")
	write(t, helper, fmt.Sprintf("#!/bin/sh\nread server\necho \"$1 $server\" >>%s/asked\nprintf '{\"ServerURL\":\"%%s\",\"Username\":\"%s\",\"Secret\":\"%s\"}' \"$server\"\n", dir, user, password))
	if err := os.Chmod(helper, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	file := filepath.Join(dir, "config.json")
	write(t, file, fmt.Sprintf(`{"credHelpers":{%q:"hcstest"}}`, addr))
	if err := push(t.Context(), src, img, ref, registry.Config{AuthFile: file}); err != nil {
		t.Fatal(err)
	}
	asked, err := os.ReadFile(filepath.Join(dir, "asked"))
	if err != nil || !strings.Contains(string(asked), "get "+addr+"\n") {
		t.Errorf("the helper was asked %q, %v", asked, err)
	}
	write(t, file, fmt.Sprintf(`{"credHelpers":{%q:"hcstest-none"}}`, addr))
	if _, err := pull(t.Context(), newStore(t), ref, registry.Config{AuthFile: file}); err == nil || !strings.Contains(err.Error(), "read the credentials for "+addr) {
		t.Errorf("without the helper: %v", err)
	}
}

// TestToken has a registry send its users to another server for a token
// (https://distribution.github.io/distribution/spec/auth/token/).
func TestToken(t *testing.T) {
	t.Parallel()
	p := startProxy(t, start(t, "", ""))
	src, img := newImage(t, amd64)
	var issued atomic.Int64
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, secret, _ := r.BasicAuth()
		if name != user || secret != password {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		issued.Add(1)
		scope := base64.RawURLEncoding.EncodeToString([]byte(strings.Join(r.URL.Query()["scope"], " ")))
		_ = json.NewEncoder(w).Encode(map[string]string{"token": scope})
	}))
	t.Cleanup(tokens.Close)
	p.clear(func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
		bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		scope, _ := base64.RawURLEncoding.DecodeString(bearer)
		action := "pull"
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			action = "push"
		}
		if ok && strings.HasPrefix(string(scope), "repository:web:") && strings.Contains(string(scope), action) {
			r.Header.Del("Authorization")
			return w, true
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test",scope="repository:web:pull,push"`, tokens.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return w, false
	})
	ref := parse(t, p.addr+"/web:1")
	good := registry.Config{User: user, Password: password}
	if err := push(t.Context(), src, img, ref, good); err != nil {
		t.Fatal(err)
	}
	if pulled, err := pull(t.Context(), newStore(t), ref, good); err != nil || pulled.ID() != img.ID() {
		t.Errorf("%v, %v", pulled, err)
	}
	if issued.Load() == 0 {
		t.Error("no token was issued")
	}
	_, err := pull(t.Context(), newStore(t), ref, registry.Config{User: user, Password: "guess"})
	checkError(t, err, errdefs.ErrUnauthenticated, "unauthorized")
}

// TestTokenExpires has a token be good for half of a layer: the rest is asked
// for with another, which there is or is not.
func TestTokenExpires(t *testing.T) {
	t.Parallel()
	addr := start(t, "", "")
	src, img := newImage(t, amd64)
	if err := push(t.Context(), src, img, parse(t, addr+"/web:1"), registry.Config{}); err != nil {
		t.Fatal(err)
	}
	large := string(img.Manifest.Layers[0].Digest)
	for name, tt := range map[string]struct {
		renewed bool
		want    string
	}{
		"renewed": {true, ""},
		"refused": {false, `unauthorized: it does not let user "tester" have`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, addr)
			var issued, expired atomic.Int64
			tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if expired.Load() > 0 && !tt.renewed {
					http.Error(w, "not any more", http.StatusUnauthorized)
					return
				}
				_ = json.NewEncoder(w).Encode(map[string]any{"token": fmt.Sprint(issued.Add(1)), "expires_in": 300})
			}))
			t.Cleanup(tokens.Close)
			p.clear(func(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
				token, _ := strconv.ParseInt(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), 10, 64)
				if token <= expired.Load() {
					w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test",scope="repository:web:pull"`, tokens.URL))
					w.WriteHeader(http.StatusUnauthorized)
					return w, false
				}
				r.Header.Del("Authorization")
				if strings.HasSuffix(r.URL.Path, large) && r.Header.Get("Range") == "" {
					w = &cutter{w, layerSize / 2, func([]byte) {
						expired.Store(issued.Load())
						panic(http.ErrAbortHandler)
					}}
				}
				return w, true
			})
			_, err := pull(t.Context(), newStore(t), parse(t, p.addr+"/web:1"), registry.Config{User: user, Password: password})
			checkError(t, err, errdefs.ErrUnauthenticated, tt.want)
			if err != nil && !strings.Contains(err.Error(), p.addr+"/web") {
				t.Errorf("%v does not name the repository", err)
			}
			if ranges := p.with("GET", large, "bytes="); len(ranges) == 0 || expired.Load() == 0 {
				t.Errorf("the rest was never asked for: %q", p.with("GET"))
			}
		})
	}
}

// TestSecretsStayEncrypted has a registry that is spoken to with HTTPS send its
// users on to a server without, for a token, and for what they asked for. It
// is oras-go and net/http that see to this.
func TestSecretsStayEncrypted(t *testing.T) {
	t.Parallel()
	var heard atomic.Int64
	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		if r.Header.Get("Authorization") != "" || len(r.PostForm) > 0 {
			heard.Add(1)
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(open.Close)
	challenge := fmt.Sprintf(`Bearer realm="%s/token",service="test",scope="repository:web:pull"`, open.URL)
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		config registry.Config
		want   string
	}{
		"token for a password": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
		}, registry.Config{User: user, Password: password}, "uses http"},
		"token for a token": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
		}, registry.Config{AuthFile: "token"}, "uses http"},
		"another place": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			http.Redirect(w, r, open.URL+r.URL.Path, http.StatusTemporaryRedirect)
		}, registry.Config{User: user, Password: password}, "unauthorized"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewTLSServer(tt.answer)
			t.Cleanup(server.Close)
			addr := server.Listener.Addr().String()
			config := tt.config
			config.Protocol = registry.HTTPS
			config.TLS = server.Client().Transport.(*http.Transport).TLSClientConfig
			if config.AuthFile != "" {
				config.AuthFile = filepath.Join(t.TempDir(), "config.json")
				write(t, config.AuthFile, fmt.Sprintf(`{"auths":{%q:{"identitytoken":"secret"}}}`, addr))
			}
			_, err := pull(t.Context(), newStore(t), parse(t, addr+"/web:1"), config)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if heard.Load() > 0 {
		t.Errorf("it heard %d secrets", heard.Load())
	}
}

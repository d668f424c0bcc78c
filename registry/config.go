package registry

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/hostcompute/hcs/image"
)

// Protocol says how a registry is spoken to.
type Protocol uint8

// Auto is HTTP for the machine's own loopback addresses and HTTPS for all
// others.
const (
	Auto Protocol = iota
	HTTPS
	HTTP
)

// Config says how registries are reached. The zero value is right for most.
type Config struct {
	Protocol Protocol
	// TLS, if not nil, is the configuration for HTTPS. It is not changed.
	TLS *tls.Config
	// User and Password are used instead of what AuthFile has.
	User, Password string
	// AuthFile is a file in the format of docker's config.json. Empty: docker's
	// own, in $DOCKER_CONFIG or ~/.docker, if it is there.
	AuthFile string
	// Stall is for how long a transfer may stand still before it is tried
	// again; 0 means 30 seconds.
	Stall time.Duration

	// Progress, if not nil, is called while layers are fetched or uploaded, from
	// several goroutines.
	Progress func(image.Progress)

	// Have, if not nil, is a source whose blobs are not fetched.
	Have image.Source

	// Mount, if not nil, names a repository of the same registry that is
	// likely to have a blob, or nothing. The registry is asked to take the blob
	// from there.
	Mount func(digest.Digest) string
	// Foreign is for layers, too, that may be had elsewhere according to their
	// descriptors, which are not uploaded otherwise.
	Foreign bool
	// Parallel is the number of uploads at a time; 0 means 4.
	Parallel int
}

const (
	defaultStall    = 30 * time.Second
	defaultParallel = 4
	dialTimeout     = 15 * time.Second
	answerTimeout   = time.Minute // a registry reads a large blob again before it answers
	userAgent       = "hcs"
)

// A repository is one name in a registry, and what it is spoken to with.
type repository struct {
	*remote.Repository
	ref       image.Ref
	stall     time.Duration
	client    *auth.Client
	transport *http.Transport

	mu   sync.Mutex
	user string // who the registry was told that we are
}

// connect prepares to speak to ref's registry. Nothing is sent yet.
func (c Config) connect(ref image.Ref) (*repository, error) {
	if ref.Transport != image.TransportDocker {
		return nil, classed(errInvalid, "image %q is not in a registry", ref)
	}
	host, name := ref.Repository()
	r := &repository{
		Repository: &remote.Repository{
			Reference: registry.Reference{Registry: host, Repository: name},
			PlainHTTP: c.Protocol == HTTP || c.Protocol == Auto && isLoopback(host),
		},
		ref:   ref,
		stall: c.Stall,
	}
	if r.stall == 0 {
		r.stall = defaultStall
	}
	if err := r.Reference.ValidateRegistry(); err != nil {
		return nil, classed(errInvalid, "image %q: %q is not the name of a registry", ref, host)
	}
	credential, err := c.credential(r.Reference.Host())
	if err != nil {
		return nil, err
	}
	r.transport = c.transport()
	r.client = &auth.Client{
		Client:     &http.Client{Transport: later{r.transport}},
		Header:     http.Header{"User-Agent": {userAgent}},
		Cache:      auth.NewCache(),
		Credential: r.remember(credential),
	}
	r.Client = r.client
	return r, nil
}

func (c Config) transport() *http.Transport {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: answerTimeout,
		IdleConnTimeout:       time.Minute,
		MaxIdleConnsPerHost:   16,
		DisableCompression:    true, // content is what digests are of
	}
	if c.TLS != nil {
		t.TLSClientConfig = c.TLS.Clone()
	}
	return t
}

// credential returns what gives the credentials for a host.
func (c Config) credential(host string) (auth.CredentialFunc, error) {
	if c.User != "" {
		return auth.StaticCredential(host, auth.Credential{Username: c.User, Password: c.Password}), nil
	}
	if _, homeless := os.UserHomeDir(); c.AuthFile == "" && os.Getenv("DOCKER_CONFIG") == "" && homeless != nil {
		return credentials.Credential(credentials.NewMemoryStore()), nil // a service without a home has none
	}
	store, err := c.store(credentials.StoreOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the credentials for %s: %w", host, err)
	}
	return credentials.Credential(store), nil
}

// remember notes who credentials are of, for messages.
func (r *repository) remember(credential auth.CredentialFunc) auth.CredentialFunc {
	return func(ctx context.Context, host string) (auth.Credential, error) {
		c, err := credential(ctx, host)
		if err != nil {
			return c, fmt.Errorf("read the credentials for %s: %w", host, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.user = c.Username
		if r.user == "" && c != auth.EmptyCredential {
			r.user = "token"
		}
		return c, nil
	}
}

// isLoopback reports whether a host, with or without a port, is this machine
// by its name or its address.
func isLoopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if name == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && ip.IsLoopback()
}

// reference returns what the registry's manifest is asked for by.
func (r *repository) reference() string {
	if r.ref.Digest != "" {
		return string(r.ref.Digest)
	}
	return r.ref.Tag
}

func (r *repository) String() string { return "repository " + r.ref.Path }

// Close lets go of connections.
func (r *repository) Close() error {
	r.transport.CloseIdleConnections()
	return nil
}

// url returns where a blob or a manifest is.
func (r *repository) url(desc v1.Descriptor) string {
	scheme, kind := "https", "blobs"
	if r.PlainHTTP {
		scheme = "http"
	}
	if image.IsManifest(desc) {
		kind = "manifests"
	}
	return fmt.Sprintf("%s://%s/v2/%s/%s/%s", scheme, r.Reference.Host(), r.Reference.Repository, kind, desc.Digest)
}

package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/hostcompute/hcs/image"
)

// Login asks a registry, such as "localhost:5000", whether it knows the
// configuration's user and password, and then keeps them where Open and Create
// look for them: with the helper that docker's configuration names, or in its
// file. Errors: ErrUnauthenticated if the registry does not know them.
func Login(ctx context.Context, host string, c Config) (err error) {
	if c.User == "" {
		return classed(errInvalid, "log in to registry %s: there is no user", host)
	}
	ref := image.Ref{Transport: image.TransportDocker, Path: host + "/login", Tag: "latest"}
	r, err := c.connect(ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	server := &remote.Registry{RepositoryOptions: remote.RepositoryOptions{
		Client: r.client, Reference: r.Reference, PlainHTTP: r.PlainHTTP,
	}}
	if err := server.Ping(ctx); err != nil {
		if err = r.explain(err, "registry"); errdefs.IsUnauthorized(err) {
			return classed(errdefs.ErrUnauthenticated, "log in to registry %s: it does not take this password of user %q", host, c.User)
		}
		return fmt.Errorf("log in to registry %s: %w", host, err)
	}
	store, err := c.store()
	if err != nil {
		return err
	}
	credential := auth.Credential{Username: c.User, Password: c.Password}
	if err := store.Put(ctx, credentials.ServerAddressFromRegistry(host), credential); err != nil {
		return fmt.Errorf("keep the credentials for %s: %w", host, err)
	}
	return nil
}

// Logout forgets what Login has kept.
func Logout(ctx context.Context, host string, c Config) error {
	store, err := c.store()
	if err != nil {
		return err
	}
	if err := credentials.Logout(ctx, store, host); err != nil {
		return fmt.Errorf("forget the credentials for %s: %w", host, err)
	}
	return nil
}

// store opens docker's configuration for writing.
func (c Config) store() (credentials.Store, error) {
	options := credentials.StoreOptions{AllowPlaintextPut: true}
	var (
		store credentials.Store
		err   error
	)
	if c.AuthFile != "" {
		store, err = credentials.NewStore(c.AuthFile, options)
	} else {
		store, err = credentials.NewStoreFromDocker(options)
	}
	if err != nil {
		return nil, fmt.Errorf("open the file of credentials: %w", err)
	}
	return store, nil
}

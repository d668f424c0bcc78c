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
// file. If it is the file, Login returns its path: the password is in there
// unencrypted. Errors: ErrUnauthenticated if the registry does not know them.
func Login(ctx context.Context, host string, c Config) (plain string, err error) {
	if c.User == "" {
		return "", classed(errInvalid, "log in to registry %s: there is no user", host)
	}
	if err := c.try(ctx, host); err != nil {
		return "", err
	}
	// Only a file's store refuses what is not encrypted.
	store, err := c.store(credentials.StoreOptions{})
	if err != nil {
		return "", err
	}
	address := credentials.ServerAddressFromRegistry(host)
	credential := auth.Credential{Username: c.User, Password: c.Password}
	err = store.Put(ctx, address, credential)
	if errors.Is(err, credentials.ErrPlaintextPutDisabled) {
		if store, err = c.store(credentials.StoreOptions{AllowPlaintextPut: true}); err != nil {
			return "", err
		}
		plain = store.ConfigPath()
		err = store.Put(ctx, address, credential)
	}
	if err != nil {
		return "", fmt.Errorf("keep the credentials for %s: %w", host, err)
	}
	return plain, nil
}

// try asks a registry whether it knows the user.
func (c Config) try(ctx context.Context, host string) (err error) {
	ref := image.Ref{Transport: image.TransportDocker, Path: host + "/login", Tag: "latest"}
	r, err := c.connect(ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	server := &remote.Registry{RepositoryOptions: remote.RepositoryOptions{
		Client: r.client, Reference: r.Reference, PlainHTTP: r.PlainHTTP,
	}}
	if err := again(ctx, func() error { return server.Ping(ctx) }); err != nil {
		if err = r.explain(err, "registry"); errdefs.IsUnauthorized(err) {
			return classed(errdefs.ErrUnauthenticated, "log in to registry %s: it does not take this password of user %q", host, c.User)
		}
		return fmt.Errorf("log in to registry %s: %w", host, err)
	}
	return nil
}

// Logout forgets what Login has kept. The error is of class ErrNotFound if
// there is nothing to forget.
func Logout(ctx context.Context, host string, c Config) error {
	store, err := c.store(credentials.StoreOptions{})
	if err != nil {
		return err
	}
	kept, err := store.Get(ctx, credentials.ServerAddressFromRegistry(host))
	if err == nil && kept == auth.EmptyCredential {
		return classed(errdefs.ErrNotFound, "forget the credentials for %s: there are none", host)
	}
	if err == nil {
		err = credentials.Logout(ctx, store, host)
	}
	if err != nil {
		return fmt.Errorf("forget the credentials for %s: %w", host, err)
	}
	return nil
}

// store opens docker's configuration.
func (c Config) store(options credentials.StoreOptions) (*credentials.DynamicStore, error) {
	var (
		store *credentials.DynamicStore
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

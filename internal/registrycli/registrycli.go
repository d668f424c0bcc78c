// Package registrycli joins the command line to package registry, and to bars
// that show how far layers are, for the program hcs-registry. It has no
// commands of its own: they are internal/cli's.
package registrycli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/cli"
	"github.com/hostcompute/hcs/registry"
)

// Main runs the command line of this process and returns its exit status.
func Main() int {
	return cli.MainWith(cli.Registries{Open: open, Create: create, Login: login, Logout: logout, Serve: serve, Post: post, Bars: newBars})
}

func open(ctx context.Context, ref image.Ref, c cli.RegistryConfig) (image.Source, error) {
	config, err := translate(c)
	if err != nil {
		return nil, err
	}
	return registry.Open(ctx, ref, config)
}

func create(ctx context.Context, ref image.Ref, c cli.RegistryConfig) (image.Target, error) {
	config, err := translate(c)
	if err != nil {
		return nil, err
	}
	return registry.Create(ctx, ref, config)
}

func login(ctx context.Context, host string, c cli.RegistryConfig) (string, error) {
	config, err := translate(c)
	if err != nil {
		return "", err
	}
	return registry.Login(ctx, host, config)
}

func logout(ctx context.Context, host string, c cli.RegistryConfig) error {
	config, err := translate(c)
	if err != nil {
		return err
	}
	return registry.Logout(ctx, host, config)
}

func translate(c cli.RegistryConfig) (registry.Config, error) {
	config := registry.Config{
		User: c.User, Password: c.Password, AuthFile: c.AuthFile,
		Have: c.Have, Mount: c.Mount, Progress: c.Progress, Parallel: c.Parallel, Foreign: c.Foreign,
	}
	if c.PlainHTTP != nil {
		config.Protocol = registry.HTTPS
		if *c.PlainHTTP {
			config.Protocol = registry.HTTP
		}
	}
	if !c.TrustAll && c.Authorities == "" {
		return config, nil
	}
	config.TLS = &tls.Config{InsecureSkipVerify: c.TrustAll} //nolint:gosec // the user says so
	if c.Authorities == "" {
		return config, nil
	}
	roots, err := authorities(c.Authorities)
	config.TLS.RootCAs = roots
	return config, err
}

// authorities are the machine's and those of a file.
func authorities(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read certificates: %s has none", file)
	}
	return roots, nil
}

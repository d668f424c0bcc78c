package cli

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

type logoutOptions struct {
	registryOptions
}

func newLogout(a *app) *cobra.Command {
	var o logoutOptions
	c := &cobra.Command{
		Use:   "logout [flags] [REGISTRY]",
		Short: "Forget the user and the password for a registry",
		Args:  takes(0, 1, "a registry"),
		RunE:  a.withRegistries(func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) }),
	}
	o.addFlags(c.Flags())
	return c
}

func (o *logoutOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.config, "authfile", defaultAuthFile(), "`file` with credentials (env REGISTRY_AUTH_FILE, default docker's config.json)")
}

func (o *logoutOptions) run(ctx context.Context, a *app, args []string) error {
	host := registryHost(args)
	err := a.registries.Logout(ctx, host, RegistryConfig{AuthFile: o.config})
	if errdefs.IsNotFound(err) {
		fmt.Fprintf(a.out, "not logged in to %s\n", host)
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "logged out of %s\n", host)
	return nil
}

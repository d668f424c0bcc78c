package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

type loginOptions struct {
	registryOptions
	user, password string
	stdin          bool
}

func newLogin(a *app) *cobra.Command {
	var o loginOptions
	c := &cobra.Command{
		Use:   "login [flags] [REGISTRY]",
		Short: "Keep a user and a password for a registry",
		Long: `Try a user and a password at a registry, and keep them for the commands
that need them. Without REGISTRY it is docker.io.

They are kept where "docker login" keeps them: with the credential helper that
docker's configuration names, or in that file, unencrypted.`,
		Example: `  hcs login -u me localhost:5000
  pass registry | hcs login -u me --password-stdin localhost:5000`,
		Args: takes(0, 1, "a registry"),
		RunE: a.withRegistries(func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) }),
	}
	o.addFlags(c.Flags())
	return c
}

func (o *loginOptions) addFlags(f *pflag.FlagSet) {
	f.StringVarP(&o.user, "username", "u", "", "`name` of the user; else it is asked for")
	f.StringVarP(&o.password, "password", "p", "", "`password`, which others see in lists of processes")
	f.BoolVar(&o.stdin, "password-stdin", false, "read the password from standard input, all of it")
	o.addServerFlags(f)
}

func (o *loginOptions) run(ctx context.Context, a *app, args []string) error {
	ctx = a.signals.catch(ctx)
	host := registryHost(args)
	config, err := o.configuration(a)
	if err != nil {
		return err
	}
	if config.User, config.Password, err = o.ask(a); err != nil {
		return err
	}
	plain, err := a.registries.Login(ctx, host, config)
	if err != nil {
		return err
	}
	if plain != "" {
		fmt.Fprintf(a.err, "hcs: warning: the password is kept unencrypted in %s, as no credential helper is configured\n", plain)
	}
	fmt.Fprintf(a.out, "logged in to %s as %s\n", host, config.User)
	return nil
}

// ask returns the user and the password, from wherever they are to come.
func (o *loginOptions) ask(a *app) (user, password string, err error) {
	terminal := term.IsTerminal(int(a.in.Fd()))
	switch {
	case o.stdin && o.password != "":
		return "", "", usage("login: the password comes from --password or from --password-stdin")
	case o.stdin && o.user == "":
		return "", "", usage("login: --password-stdin needs --username")
	case o.stdin:
		raw, err := io.ReadAll(io.LimitReader(a.in, maxLine))
		if err != nil {
			return "", "", fmt.Errorf("read the password from standard input: %w", err)
		}
		o.password = strings.TrimRight(string(raw), "\r\n")
		if o.password == "" {
			return "", "", usage("login: standard input has no password")
		}
	case o.password != "":
		fmt.Fprintln(a.err, "hcs: warning: others may see the password of --password; --password-stdin hides it")
	case !terminal:
		return "", "", usage("login: without a terminal the password comes from --password-stdin")
	}
	if o.user == "" && terminal {
		fmt.Fprint(a.err, "Username: ")
		if o.user, err = a.readLine("name of the user"); err != nil {
			return "", "", err
		}
	}
	if o.user == "" {
		return "", "", usage("login: name the user with --username")
	}
	if o.password == "" {
		o.password, err = a.readPassword(o.user)
	}
	return o.user, o.password, err
}

const dockerRegistry = "docker.io"

// registryHost is the registry that an argument names, which docker lets be an
// address with a path too.
func registryHost(args []string) string {
	if len(args) == 0 {
		return dockerRegistry
	}
	host := args[0]
	for _, scheme := range []string{"https://", "http://", "docker://"} {
		host = strings.TrimPrefix(host, scheme)
	}
	host, _, _ = strings.Cut(host, "/")
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return dockerRegistry
	}
	return host
}

package cli

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// registryOptions are the flags of all commands that speak to registries,
// under the names that skopeo and podman have for them.
type registryOptions struct {
	plain             bool
	verify            bool
	ca, creds, config string
	parallel          int
	flags             *pflag.FlagSet
}

const defaultTransfers = 4

func (o *registryOptions) addFlags(f *pflag.FlagSet) {
	o.flags = f
	f.BoolVar(&o.plain, "plain-http", false, "speak HTTP (default for this machine's loopback addresses), or with =false HTTPS to them too")
	f.BoolVar(&o.verify, "tls-verify", true, "check the registry's certificate")
	f.StringVar(&o.ca, "tls-ca", "", "accept certificates of the authorities in `file` too")
	f.StringVar(&o.creds, "creds", "", "`user[:password]` for the registry; without the password it is read from standard input")
	f.StringVar(&o.config, "authfile", os.Getenv("REGISTRY_AUTH_FILE"), "`file` with credentials (env REGISTRY_AUTH_FILE, default docker's config.json)")
	f.IntVar(&o.parallel, "parallel", defaultTransfers, "`number` of layers at a time")
}

// configuration reads what the flags name.
func (o *registryOptions) configuration(a *app) (RegistryConfig, error) {
	c := RegistryConfig{AuthFile: o.config, Parallel: o.parallel, TrustAll: !o.verify, Authorities: o.ca}
	if o.flags.Changed("plain-http") {
		c.PlainHTTP = &o.plain
	}
	var err error
	if o.creds != "" {
		c.User, c.Password, err = o.login(a)
	}
	return c, err
}

func (o *registryOptions) login(a *app) (user, password string, err error) {
	user, password, found := strings.Cut(o.creds, ":")
	switch {
	case user == "":
		return "", "", usage("creds: it is user:password, or user alone")
	case found:
		return user, password, nil
	case term.IsTerminal(int(a.in.Fd())):
		fmt.Fprintf(a.err, "Password of %s: ", user)
		raw, err := term.ReadPassword(int(a.in.Fd()))
		fmt.Fprintln(a.err)
		return user, string(raw), err
	}
	line := bufio.NewScanner(a.in)
	if !line.Scan() {
		return "", "", errors.Join(errors.New("read the password: standard input is empty"), line.Err())
	}
	return user, line.Text(), nil
}

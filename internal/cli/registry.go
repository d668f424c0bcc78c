package cli

import (
	"bufio"
	"fmt"
	"io"
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
	foreign           bool
	flags             *pflag.FlagSet
}

const defaultTransfers = 4

func (o *registryOptions) addFlags(f *pflag.FlagSet) {
	o.addServerFlags(f)
	f.StringVar(&o.creds, "creds", "", "`user[:password]` for the registry; without the password it is read from standard input")
	f.IntVar(&o.parallel, "parallel", defaultTransfers, "`number` of layers at a time")
}

// addPushFlags adds those of commands that put images into registries.
func (o *registryOptions) addPushFlags(f *pflag.FlagSet) {
	o.addFlags(f)
	f.BoolVar(&o.foreign, "allow-nondistributable-artifacts", false, "send layers, too, that may be had elsewhere according to their image, as of older base images for Windows")
}

// addServerFlags adds those that say how a registry is spoken to.
func (o *registryOptions) addServerFlags(f *pflag.FlagSet) {
	o.flags = f
	f.BoolVar(&o.plain, "plain-http", false, "speak HTTP (default for this machine's loopback addresses), or with =false HTTPS to them too")
	f.BoolVar(&o.verify, "tls-verify", true, "check the registry's certificate")
	f.StringVar(&o.ca, "tls-ca", "", "accept certificates of the authorities in `file` too")
	f.StringVar(&o.config, "authfile", defaultAuthFile(), "`file` with credentials (env REGISTRY_AUTH_FILE, default docker's config.json)")
}

func defaultAuthFile() string { return os.Getenv("REGISTRY_AUTH_FILE") }

// configuration reads what the flags name.
func (o *registryOptions) configuration(a *app) (RegistryConfig, error) {
	c := RegistryConfig{AuthFile: o.config, Parallel: o.parallel, TrustAll: !o.verify, Authorities: o.ca, Foreign: o.foreign}
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
	}
	password, err = a.readPassword(user)
	return user, password, err
}

// readPassword asks for a password at the terminal, which does not show it, or
// reads a line of standard input.
func (a *app) readPassword(user string) (string, error) {
	if !term.IsTerminal(int(a.in.Fd())) {
		return a.readLine("password")
	}
	fmt.Fprintf(a.err, "Password of %s: ", user)
	raw, err := term.ReadPassword(int(a.in.Fd()))
	fmt.Fprintln(a.err)
	return string(raw), err
}

// maxLine is more than tokens have that are used as passwords.
const maxLine = 64 << 10

// readLine reads one line of standard input.
func (a *app) readLine(what string) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(a.in, maxLine)).ReadString('\n')
	if err != nil && (err != io.EOF || line == "") {
		return "", fmt.Errorf("read the %s from standard input: %w", what, err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

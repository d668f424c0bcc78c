package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/image"
)

// registryProgram has the same commands as hcs, and can speak to registries.
// What that takes costs every start of a program that links it.
const registryProgram = "hcs-registry"

// Registries is what speaks to registries. It is package registry behind the
// flags' own types, so that hcs does not link it.
type Registries struct {
	Open   func(context.Context, image.Ref, RegistryConfig) (image.Source, error)
	Create func(context.Context, image.Ref, RegistryConfig) (image.Target, error)
	// Login keeps the configuration's user and password for a registry, and
	// returns the file that has the password as it is, if one has.
	Login func(ctx context.Context, host string, c RegistryConfig) (plain string, err error)
	// Logout forgets what Login has kept: an error of class ErrNotFound if that
	// is nothing.
	Logout func(ctx context.Context, host string, c RegistryConfig) error
	// Serve answers HTTP requests for a path with what write writes, until the context ends. Ready is told where it listens.
	Serve func(ctx context.Context, at Listener, ready func(url string), write func(context.Context, io.Writer) error) error
	// Post sends a body to a URL over HTTP, and fails unless the answer is a success.
	Post func(ctx context.Context, url string, header map[string]string, body io.Reader) error
	// Bars draws bars at a terminal.
	Bars func(terminal io.Writer) Bars
}

// Bars show how far each layer is. Show may be called from several
// goroutines; after End, which may come twice, nothing is drawn.
type Bars interface {
	Show(image.Progress)
	End()
}

// RegistryConfig is what the flags say of registries.
type RegistryConfig struct {
	PlainHTTP      *bool  // nil is HTTP for this machine's loopback addresses alone
	TrustAll       bool   // any certificate will do
	Authorities    string // file of certificates
	AuthFile       string
	User, Password string
	Have           image.Source
	Mount          func(digest.Digest) string
	Progress       func(image.Progress)
	Parallel       int
	Foreign        bool // layers that may be had elsewhere are sent, too
}

// Listener says where HTTP is served, and what.
type Listener struct {
	Network, Address  string // "tcp" or "unix", as net.Listen has them
	Path, ContentType string // what is asked for, and what is given
}

// MainWith is Main of a program that speaks to registries.
func MainWith(r Registries) int { return (&app{registries: &r}).main() }

// withRegistries has a command run by hcs-registry. Its help, its completion
// and the judging of its flags are hcs's own.
func (a *app) withRegistries(run func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		if a.registries != nil {
			return run(c, args)
		}
		program, err := findProgram(registryProgram)
		if err != nil {
			return err
		}
		if err := become(program, os.Args[1:]); err != nil {
			return fmt.Errorf("run %s: %w", program, err)
		}
		return nil
	}
}

// findProgram finds one of our own programs where the library looks for
// hcs-shim.
func findProgram(name string) (string, error) {
	var places []string
	if self, err := os.Executable(); err == nil {
		places = append(places, filepath.Join(filepath.Dir(self), name))
	}
	for _, file := range append(places, name, "/usr/local/libexec/hcs/"+name, "/usr/libexec/hcs/"+name) {
		if path, err := exec.LookPath(file); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", errors.New("find program " + name + ": it is neither beside hcs, nor in $PATH, nor in /usr/libexec/hcs")
}

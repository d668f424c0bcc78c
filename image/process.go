package image

import (
	"io"
	"path"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/internal/passwd"
)

// DefaultPath is what docker gives a process whose image names no PATH.
const DefaultPath = passwd.DefaultPath

// Overrides are what a command line says otherwise than an image. The zero
// value changes nothing.
type Overrides struct {
	// Entrypoint replaces the image's entrypoint, and drops the image's
	// command. Nil keeps both; empty means no entrypoint.
	Entrypoint []string
	// Args replace the image's command.
	Args []string
	// Env sets variables, "KEY=VALUE".
	Env []string
	// Cwd replaces the working directory; it must be absolute.
	Cwd string
	// User replaces the user, see ResolveUser.
	User string
	// Terminal gives the process a terminal, and TERM if nothing sets it.
	Terminal Terminal
}

// Terminal says whether a process has a terminal.
type Terminal uint8

// A process has no terminal, or one.
const (
	NoTerminal Terminal = iota
	WithTerminal
)

// Command is the process that an image's configuration and a command line
// describe, as far as it can be told without the image's files.
type Command struct {
	Args     []string
	Env      []string // without HOME, unless it is set explicitly
	Cwd      string   // absolute
	User     string   // as it was given: see ResolveUser
	Terminal Terminal
}

// NewCommand puts overrides over a configuration, in docker's manner. The
// error is of class ErrInvalidArgument; there is nothing to run if Args is
// empty.
func NewCommand(cfg v1.ImageConfig, o Overrides) (*Command, error) {
	c := &Command{Args: arguments(cfg, o), User: cfg.User, Terminal: o.Terminal}
	if o.User != "" {
		c.User = o.User
	}
	var err error
	if c.Cwd, err = workingDir(cfg, o); err != nil {
		return nil, err
	}
	if c.Env, err = environment(cfg, o); err != nil {
		return nil, err
	}
	for _, s := range append(slices.Clone(c.Args), c.Cwd, c.User) {
		if strings.Contains(s, "\x00") {
			return nil, invalid("argument %q has a NUL byte", s)
		}
	}
	return c, nil
}

// Process returns the process that an image's configuration describes, with
// the overrides in docker's manner. open opens a file of the image, as for
// ResolveUser. Capabilities, limits and profiles are left to the caller. The
// error is of class ErrInvalidArgument if there is nothing to run.
func Process(cfg v1.ImageConfig, o Overrides, open func(name string) (io.ReadCloser, error)) (*specs.Process, error) {
	c, err := NewCommand(cfg, o)
	if err != nil {
		return nil, err
	}
	if len(c.Args) == 0 {
		return nil, invalid("the image has no command: name one")
	}
	user, home, err := ResolveUser(c.User, open)
	if err != nil {
		return nil, err
	}
	if home == "" {
		home = "/"
	}
	if !slices.ContainsFunc(c.Env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		c.Env = append(c.Env, "HOME="+home)
	}
	return &specs.Process{Terminal: o.Terminal == WithTerminal, User: user, Args: c.Args, Env: c.Env, Cwd: c.Cwd}, nil
}

func arguments(cfg v1.ImageConfig, o Overrides) []string {
	entrypoint, cmd := cfg.Entrypoint, cfg.Cmd
	if o.Entrypoint != nil {
		entrypoint, cmd = o.Entrypoint, nil
	}
	if len(o.Args) > 0 {
		cmd = o.Args
	}
	return append(slices.Clone(entrypoint), cmd...)
}

// workingDir returns a clean absolute path. An image's relative one is taken
// from the root; on the command line it is more likely a mistake.
func workingDir(cfg v1.ImageConfig, o Overrides) (string, error) {
	if o.Cwd == "" {
		return path.Join("/", cfg.WorkingDir), nil
	}
	if !path.IsAbs(o.Cwd) {
		return "", invalid("working directory %q is not absolute", o.Cwd)
	}
	return path.Clean(o.Cwd), nil
}

// environment returns the variables in the order in which they are first set,
// each with the value set last.
func environment(cfg v1.ImageConfig, o Overrides) ([]string, error) {
	var env []string
	place := map[string]int{}
	set := func(kv string) {
		key, _, _ := strings.Cut(kv, "=")
		if i, ok := place[key]; ok {
			env[i] = kv
			return
		}
		place[key] = len(env)
		env = append(env, kv)
	}
	for _, kv := range slices.Concat(cfg.Env, o.Env) {
		key, _, found := strings.Cut(kv, "=")
		if !found || key == "" || strings.Contains(kv, "\x00") {
			return nil, invalid("environment variable %q is malformed: it is not KEY=VALUE", kv)
		}
		set(kv)
	}
	defaults := []string{"PATH=" + DefaultPath}
	if o.Terminal == WithTerminal {
		defaults = append(defaults, "TERM=xterm")
	}
	for _, kv := range defaults {
		if key, _, _ := strings.Cut(kv, "="); !has(place, key) {
			set(kv)
		}
	}
	return env, nil
}

func has(m map[string]int, key string) bool {
	_, ok := m[key]
	return ok
}

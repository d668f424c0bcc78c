package image

import (
	"io"
	"path"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultPath is what docker gives a process whose image names no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

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

// Process returns the process that an image's configuration describes, with
// the overrides in docker's manner. open opens a file of the image, as for
// ResolveUser. Capabilities, limits and profiles are left to the caller. The
// error is of class ErrInvalidArgument if there is nothing to run.
func Process(cfg v1.ImageConfig, o Overrides, open func(name string) (io.ReadCloser, error)) (*specs.Process, error) {
	args := arguments(cfg, o)
	if len(args) == 0 {
		return nil, invalid("the image has no command: name one")
	}
	cwd, err := workingDir(cfg, o)
	if err != nil {
		return nil, err
	}
	spec := cfg.User
	if o.User != "" {
		spec = o.User
	}
	user, home, err := ResolveUser(spec, open)
	if err != nil {
		return nil, err
	}
	env, err := environment(cfg, o, home)
	if err != nil {
		return nil, err
	}
	for _, s := range append(slices.Clone(args), cwd) {
		if strings.Contains(s, "\x00") {
			return nil, invalid("argument %q has a NUL byte", s)
		}
	}
	return &specs.Process{Terminal: o.Terminal == WithTerminal, User: user, Args: args, Env: env, Cwd: cwd}, nil
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
// each with the value set last. HOME comes from passwd unless it is set.
func environment(cfg v1.ImageConfig, o Overrides, home string) ([]string, error) {
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
	if home == "" {
		home = "/"
	}
	defaults := []string{"PATH=" + defaultPath, "HOME=" + home}
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

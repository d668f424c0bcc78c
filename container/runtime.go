package container

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/wire"
)

// nativeKind is the Kind of the starter that is no OCI runtime but this
// project's own.
const nativeKind = "native"

// Runtime is what starts systems: an OCI runtime that was found and asked who
// it is, or none.
type Runtime struct {
	Path    string `json:"path,omitempty"`
	Kind    string `json:"kind"` // "native", "runc", "crun": decides how it is called
	Version string `json:"version,omitempty"`
	// Instead says why it is not the native one, where nobody chose.
	Instead string `json:"instead,omitempty"`

	Size  int64 `json:"size"` // of the file that was asked
	MTime int64 `json:"mtime"`
}

// String says for people what it is.
func (r *Runtime) String() string {
	if r.Kind == nativeKind {
		return r.Kind
	}
	text := fmt.Sprintf("%s %s (%s)", r.Kind, r.Version, r.Path)
	if r.Instead != "" {
		text += ", for want of the native starter: " + r.Instead
	}
	return text
}

func (r *Runtime) wire() wire.Runtime { return wire.Runtime{Path: r.Path, Kind: r.Kind} }

// runtimeNames are looked for in this order where none is named: crun starts a
// container in two thirds of the time.
var runtimeNames = []string{"crun", "runc"}

// chooseRuntime finds what the name says, or, if it is empty, what there is:
// the native starter, unless there is something against it, else an OCI
// runtime. The cache file is findRuntime's.
func chooseRuntime(name, cache string, against error) (*Runtime, error) {
	switch {
	case name == nativeKind && against != nil:
		return nil, fault(errdefs.ErrNotImplemented, "start containers natively: %w", against)
	case name == nativeKind || name == "" && against == nil:
		return &Runtime{Kind: nativeKind}, nil
	case name != "":
		return findRuntime(cache, name)
	}
	r, err := findRuntime(cache, runtimeNames...)
	if err != nil {
		return nil, fmt.Errorf("%w; and the native starter: %w", err, against)
	}
	r.Instead = against.Error()
	return r, nil
}

// findRuntime finds the first of the runtimes that there is, by name or path.
// What a program said of itself is kept in the cache file, for as long as the
// program is the same: asking takes longer than starting a container's
// process.
func findRuntime(cache string, names ...string) (*Runtime, error) {
	file, err := lookRuntime(names)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("find OCI runtime: %w", err)
	}
	r := &Runtime{Path: file, Size: info.Size(), MTime: info.ModTime().UnixNano()}
	if known := cachedRuntime(cache); known.Path == r.Path && known.Size == r.Size && known.MTime == r.MTime {
		return known, nil
	}
	if err := r.probe(); err != nil {
		return nil, err
	}
	return r, r.keep(cache)
}

func lookRuntime(names []string) (string, error) {
	for _, n := range names {
		file, err := exec.LookPath(n)
		if err != nil && !strings.Contains(n, "/") {
			file, err = exec.LookPath("/usr/sbin/" + n) // not in an ordinary user's PATH
		}
		if err == nil {
			return filepath.Abs(file)
		}
	}
	return "", fault(errdefs.ErrNotFound, "find OCI runtime %s: not in $PATH", strings.Join(names, " or "))
}

func cachedRuntime(cache string) *Runtime {
	r := new(Runtime)
	if text, err := os.ReadFile(cache); err != nil || json.Unmarshal(text, r) != nil {
		return new(Runtime)
	}
	return r
}

// probe runs the program: "runc version 1.1.5" is what it says in its first
// line.
func (r *Runtime) probe() error {
	out, err := exec.Command(r.Path, "--version").Output()
	if err != nil {
		return fmt.Errorf("probe OCI runtime %s: %w", r.Path, err)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) < 3 || words[1] != "version" {
		return fault(errdefs.ErrInvalidArgument, "probe OCI runtime %s: it does not say its version: %q", r.Path, line)
	}
	r.Kind, r.Version = words[0], words[2]
	return nil
}

// keep writes the cache file in its place: what a process that was killed, or
// others at the same time, leave there is no JSON, and asked for again.
func (r *Runtime) keep(cache string) error {
	text, err := json.Marshal(r)
	if err == nil {
		err = os.WriteFile(cache, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep what OCI runtime %s is: %w", r.Path, err)
	}
	return nil
}

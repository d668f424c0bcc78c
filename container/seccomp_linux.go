package container

import (
	"embed"
	"runtime"
	"slices"
	"sync"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/internal/seccomp"
)

// seccompFilter returns docker's filter for the capabilities, or none.
func (s *Security) seccompFilter(capabilities []string) (*specs.LinuxSeccomp, error) {
	switch {
	case s.Seccomp == SeccompUnconfined:
		return nil, nil
	case slices.Equal(capabilities, defaultCapabilities):
		return defaultSeccomp()
	}
	return seccompFor(capabilities)
}

// seccompProgram returns docker's filter for the capabilities, compiled, or
// none.
func (s *Security) seccompProgram(capabilities []string) ([]byte, error) {
	switch {
	case s.Seccomp == SeccompUnconfined:
		return nil, nil
	case slices.Equal(capabilities, defaultCapabilities):
		return defaultProgram()
	}
	c, err := seccompFor(capabilities)
	if err != nil {
		return nil, err
	}
	return seccomp.Compile(c)
}

// filters are what defaultProgram would return, by Go's names of machines: to
// compile one takes a millisecond, of each command that starts a container.
//
//go:embed filters
var filters embed.FS

func filterFile(machine string) string { return "filters/" + machine + ".bpf" }

// defaultProgram returns docker's filter for the default capabilities,
// compiled: it is not to be changed.
var defaultProgram = sync.OnceValues(func() ([]byte, error) {
	if program, err := filters.ReadFile(filterFile(runtime.GOARCH)); err == nil {
		return program, nil
	}
	return compileDefault()
})

func compileDefault() ([]byte, error) {
	c, err := defaultSeccomp()
	if err != nil {
		return nil, err
	}
	return seccomp.Compile(c)
}

// defaultSeccomp returns docker's filter for the default capabilities.
var defaultSeccomp = sync.OnceValues(func() (*specs.LinuxSeccomp, error) { return seccompFor(defaultCapabilities) })

func seccompFor(capabilities []string) (*specs.LinuxSeccomp, error) {
	return moby.GetDefaultProfile(&specs.Spec{Process: &specs.Process{
		Capabilities: &specs.LinuxCapabilities{Bounding: capabilities},
	}})
}

package container

import (
	"slices"
	"sync"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
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

// defaultSeccomp returns docker's filter for the default capabilities.
var defaultSeccomp = sync.OnceValues(func() (*specs.LinuxSeccomp, error) { return seccompFor(defaultCapabilities) })

func seccompFor(capabilities []string) (*specs.LinuxSeccomp, error) {
	return seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{
		Capabilities: &specs.LinuxCapabilities{Bounding: capabilities},
	}})
}

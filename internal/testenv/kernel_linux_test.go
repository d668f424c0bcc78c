package testenv_test

import (
	"testing"

	"github.com/hostcompute/hcs/internal/testenv"
)

// TestPromisedMachine proves the promise that HCS_TEST_PRIVILEGED=1 makes: what every container needs. Other features are
// asked for by the tests that use them.
func TestPromisedMachine(t *testing.T) {
	for _, f := range []testenv.Feature{
		testenv.MountAPI, testenv.Overlay, testenv.Openat2, testenv.PidFD, testenv.MountNamespaces,
		testenv.NetNamespaces, testenv.Seccomp, testenv.Cgroups, testenv.LoopDevices,
	} {
		t.Run(string(f), func(t *testing.T) { testenv.NeedKernel(t, f) })
	}
}

package hcs_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/hostcompute/hcs/internal/testenv"
)

// TestMain runs the tests, as root, where /var/lib and /run are their own: a
// zero Config means these, and the machine's are not for tests.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		if err := flag.Set("test.skip", "^Example"); err != nil { // examples cannot skip by themselves
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	if status, ours := inPrivateMounts("/var/lib", "/run"); !ours {
		os.Exit(status)
	}
	os.Exit(testenv.Main(m))
}

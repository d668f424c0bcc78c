package cli_test

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs/internal/cli"
)

// TestPrivateSocket has a socket be its user's alone as soon as it is bound, whatever the umask lets others have.
func TestPrivateSocket(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0)) // it is not parallel: no other test of this package makes files meanwhile
	for _, control := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "socket")
		var config net.ListenConfig
		want := os.FileMode(0o777)
		if control {
			config.Control, want = cli.Listener{Network: "unix", Address: path}.Control, 0o600
		}
		l, err := config.Listen(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("the socket is %v, %v; want %v", info.Mode(), err, want)
		}
	}
}

package testenv

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Veths makes network endpoints of pairs of virtual links: one end in a system, the other here. It remembers nothing of them: any
// program can end what another has begun. It needs the commands ip and nsenter.
type Veths struct {
	// Before and After, if they are not nil, are called before and after a link is made. An error of theirs is Attach's.
	Before, After func(endpoint string) error

	mu    sync.Mutex
	calls []string
}

// NewEndpoint makes the id of an endpoint, which is to have no link at the test's end.
func NewEndpoint(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(string(text))
	t.Cleanup(func() {
		if hasLink(id) {
			t.Errorf("endpoint %s has its link still", id)
		}
	})
	return id
}

// Link returns what both of an endpoint's links are called, and the addresses of the one here and of the other.
func (v *Veths) Link(endpoint string) (name, here, there string) {
	sum := sha256.Sum256([]byte(endpoint))
	subnet := fmt.Sprintf("198.18.%d.", sum[0]) // for measuring networks (RFC 2544)
	first := int(sum[1]) &^ 3
	return fmt.Sprintf("hcs%x", sum[2:7]), subnet + strconv.Itoa(first+1), subnet + strconv.Itoa(first+2)
}

func hasLink(endpoint string) bool {
	name, _, _ := (*Veths)(nil).Link(endpoint)
	_, err := net.InterfaceByName(name)
	return err == nil
}

// Calls returns the calls since it was asked last.
func (v *Veths) Calls() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	calls := strings.Join(v.calls, ", ")
	v.calls = nil
	return calls
}

func (v *Veths) note(call, endpoint string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calls = append(v.calls, call+" "+endpoint)
}

// Attach makes the pair, with addresses.
func (v *Veths) Attach(ctx context.Context, _, endpoint string, namespace *os.File) error {
	v.note("attach", endpoint)
	if v.Before != nil {
		if err := v.Before(endpoint); err != nil {
			return err
		}
	}
	name, here, there := v.Link(endpoint)
	const ns = "/proc/self/fd/3"
	for _, args := range [][]string{
		{"ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", ns},
		{"ip", "addr", "add", here + "/30", "dev", name},
		{"ip", "link", "set", name, "up"},
		{"nsenter", "--net=" + ns, "ip", "addr", "add", there + "/30", "dev", name},
		{"nsenter", "--net=" + ns, "ip", "link", "set", name, "up"},
	} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.ExtraFiles = []*os.File{namespace}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%q: %w: %s", args, err, out)
		}
	}
	if v.After != nil {
		return v.After(endpoint)
	}
	return nil
}

// Detach removes the pair, if there is one.
func (v *Veths) Detach(_ context.Context, _, endpoint string) error {
	v.note("detach", endpoint)
	name, _, _ := v.Link(endpoint)
	out, err := exec.Command("ip", "link", "del", name).CombinedOutput()
	if err != nil && hasLink(endpoint) {
		return fmt.Errorf("ip link del %s: %w: %s", name, err, out)
	}
	return nil
}

// Greet answers the next who connects to the endpoint's address here with its id. It returns the address and the port.
func (v *Veths) Greet(t testing.TB, endpoint string) (host, port string) {
	t.Helper()
	_, here, _ := v.Link(endpoint)
	l, err := net.Listen("tcp", net.JoinHostPort(here, "0"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = c.Write([]byte(endpoint))
			_ = c.Close()
		}
		_ = l.Close()
	}()
	t.Cleanup(func() { _ = l.Close() })
	host, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

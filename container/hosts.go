package container

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Host is a name that programs in a system find without asking a server: a
// line of its /etc/hosts (hosts(5)).
type Host struct {
	Name    string `json:"name"`
	Address string `json:"address"` // IPv4 or IPv6
}

const hostsName = "/etc/hosts"

// loopbackHosts are the names that every hosts file of docker's has.
const loopbackHosts = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`

func (s *Spec) checkHosts() error {
	for _, h := range s.Hosts {
		if h.Name == "" || strings.ContainsFunc(h.Name, func(r rune) bool { return r <= ' ' || r == '#' || r > '~' }) {
			return fmt.Errorf("host %q: use printable characters without blanks and #", h.Name)
		}
		if a, err := netip.ParseAddr(h.Address); err != nil || a.Zone() != "" {
			return fmt.Errorf("host %s: %q is not an IPv4 or IPv6 address", h.Name, h.Address)
		}
	}
	if len(s.Hosts) > 0 && slices.ContainsFunc(s.Mounts, func(m Mount) bool { return m.target() == hostsName }) {
		return fmt.Errorf("hosts, and a mount at %s: give one of both", hostsName)
	}
	return nil
}

// hostsFile is where the system's hosts are on the host, while it runs.
func hostsFile(runDir string) string { return filepath.Join(runDir, "hosts") }

// hostsText returns the file's content. On the host's network the host's names
// come first, as they are at that moment.
func (s *Spec) hostsText() (string, error) {
	text := loopbackHosts
	if s.Network == NetworkHost {
		own, err := os.ReadFile(hostsName)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		text = string(own)
	}
	var b strings.Builder
	b.WriteString(text)
	if text != "" && !strings.HasSuffix(text, "\n") {
		b.WriteByte('\n')
	}
	for _, h := range s.Hosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.Address, h.Name)
	}
	return b.String(), nil
}

// writeNetworkFiles makes the files that say how names are found, where the
// spec does.
func (s *Spec) writeNetworkFiles(runDir string) error {
	if s.DNS.IsSet() {
		if err := writeForAll(resolvFile(runDir), s.DNS.text()); err != nil {
			return err
		}
	}
	if len(s.Hosts) == 0 {
		return nil
	}
	text, err := s.hostsText()
	if err != nil {
		return err
	}
	return writeForAll(hostsFile(runDir), text)
}

// writeForAll makes a file that everybody in the system may read, whatever this
// process's umask is.
func writeForAll(name, text string) error {
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Chmod(name, 0o644)
}

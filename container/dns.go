package container

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// DNS says how programs in a system find names: what its /etc/resolv.conf has
// (resolv.conf(5)). The zero value leaves that to the image, or, on the host's
// network, to the host.
type DNS struct {
	Servers []string `json:"servers,omitempty"` // addresses
	Search  []string `json:"search,omitempty"`  // domains
	Options []string `json:"options,omitempty"` // "ndots:2" say
}

// IsSet reports whether the system has a resolv.conf of its own.
func (d *DNS) IsSet() bool { return len(d.Servers)+len(d.Search)+len(d.Options) > 0 }

const resolvConf = "/etc/resolv.conf"

func (s *Spec) checkDNS() error {
	for _, server := range s.DNS.Servers {
		if _, err := netip.ParseAddr(server); err != nil {
			return fmt.Errorf("DNS server %q: not an address", server)
		}
	}
	for _, word := range slices.Concat(s.DNS.Search, s.DNS.Options) {
		if word == "" || strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("DNS domain or option %q: use printable characters without blanks", word)
		}
	}
	if s.DNS.IsSet() && slices.ContainsFunc(s.Mounts, func(m Mount) bool { return m.target() == resolvConf }) {
		return fmt.Errorf("DNS servers, domains or options, and a mount at %s: give one of both", resolvConf)
	}
	return nil
}

// text returns the file's content.
func (d *DNS) text() string {
	var b strings.Builder
	for _, server := range d.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	for _, line := range []struct {
		key   string
		words []string
	}{{"search", d.Search}, {"options", d.Options}} {
		if len(line.words) > 0 {
			fmt.Fprintf(&b, "%s %s\n", line.key, strings.Join(line.words, " "))
		}
	}
	return b.String()
}

// resolvFile is where the system's resolv.conf is on the host, while it runs.
func resolvFile(runDir string) string { return filepath.Join(runDir, "resolv.conf") }

// Checkpoint would save the state of a running system's processes, to go on
// from there. It returns an error of class ErrNotImplemented: what the kernel
// knows of processes cannot be saved yet.
func (s *System) Checkpoint(context.Context, string) error {
	return s.wrap("checkpoint", fault(errdefs.ErrNotImplemented, "the state of running processes cannot be saved"))
}

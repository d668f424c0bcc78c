package cli

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/hostcompute/hcs/container"
)

func parseHosts(list []string) ([]container.Host, error) {
	var hosts []container.Host
	for _, text := range list {
		h, err := parseHost(text)
		if err != nil {
			return nil, fmt.Errorf("host %q: %w", text, err)
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

// parseHost reads NAME:ADDRESS or NAME=ADDRESS, in which an IPv6 address may
// stand in brackets.
func parseHost(text string) (container.Host, error) {
	var h container.Host
	i := strings.IndexAny(text, "=:")
	if i < 1 {
		return h, usage("give NAME:ADDRESS, such as db:192.0.2.1")
	}
	h.Name, h.Address = text[:i], text[i+1:]
	if h.Address == "host-gateway" {
		return h, usage("a container has no gateway to the host: give an address, or --network host")
	}
	if inner, ok := strings.CutPrefix(h.Address, "["); ok && strings.HasSuffix(inner, "]") {
		h.Address = strings.TrimSuffix(inner, "]")
	}
	if _, err := netip.ParseAddr(h.Address); err != nil {
		return h, usage(fmt.Sprintf("%q is not an IPv4 or IPv6 address", text[i+1:]))
	}
	return h, nil
}

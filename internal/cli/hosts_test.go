package cli

import (
	"strings"
	"testing"

	"github.com/hostcompute/hcs/container"
)

func TestParseHost(t *testing.T) {
	t.Parallel()
	parses(t, parseHost, map[string]container.Host{
		"db:192.0.2.1":              {Name: "db", Address: "192.0.2.1"},
		"db=192.0.2.1":              {Name: "db", Address: "192.0.2.1"},
		"db.example.org:::1":        {Name: "db.example.org", Address: "::1"},
		"db=2001:db8::1":            {Name: "db", Address: "2001:db8::1"},
		"db:[2001:db8::1]":          {Name: "db", Address: "2001:db8::1"},
		"db=[::1]":                  {Name: "db", Address: "::1"},
		"db:::ffff:192.0.2.1":       {Name: "db", Address: "::ffff:192.0.2.1"},
		"xn--bcher-kva.example:1::": {Name: "xn--bcher-kva.example", Address: "1::"},
	}, "", "db", ":192.0.2.1", "=::1", "db:", "db:[::1", "db:::1]", "db:[]", "db:[[::1]]", "db:192.0.2", "db:192.0.2.256", "db:other", "db:192.0.2.1:80")
	for text, want := range map[string]string{
		"db:192.0.2.256":  `host "db:192.0.2.256": "192.0.2.256" is not an IPv4 or IPv6 address`,
		"db:host-gateway": `host "db:host-gateway": a container has no gateway to the host`,
		"db":              `host "db": give NAME:ADDRESS`,
	} {
		if _, err := parseHosts([]string{"a:192.0.2.1", text}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

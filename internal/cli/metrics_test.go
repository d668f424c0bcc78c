package cli

import (
	"bufio"
	"strconv"
	"strings"
	"testing"
)

func TestMetricsListener(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"9101": "tcp 127.0.0.1:9101", ":9101": "tcp 127.0.0.1:9101", "0.0.0.0:9101": "tcp 0.0.0.0:9101", "[::]:0": "tcp [::]:0",
		"localhost:80": "tcp localhost:80", "unix:/run/x": "unix /run/x", "unix:9101": "unix 9101", "unix:a:80": "unix a:80",
	} {
		at, err := (&metricsOptions{text}).listener()
		if got := at.Network + " " + at.Address; err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", ":", "unix:", "localhost", "localhost:", "127.0.0.1:x", "99999", "1.2.3.4:-1"} {
		if at, err := (&metricsOptions{text}).listener(); err == nil || !strings.Contains(err.Error(), strconv.Quote(text)) {
			t.Errorf("%q: got %v, %v, want an error that names it", text, at, err)
		}
	}
}

// TestMetricsEscape has labels say what they are whatever that is.
func TestMetricsEscape(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	w := metricsWriter{bufio.NewWriter(&out)}
	w.sample("name", 1.5e9, "a", "back\\slash \"quoted\"\nline", "b", "")
	if err := w.w.Flush(); err != nil {
		t.Fatal(err)
	}
	want := `name{a="back\\slash \"quoted\"\nline",b=""} 1.5e+09` + "\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

package cli

import (
	"bufio"
	"strings"
	"testing"
)

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

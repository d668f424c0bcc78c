package container_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/container"
)

// TestShimLog has each start and end be a line, and the file begin anew when it is large.
func TestShimLog(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	s := f.created(container.Spec{})
	file := filepath.Join(f.config.Root, "containers", s.ID(), "shim.log")
	life := func() {
		t.Helper()
		f.must(s.Start(ctx))
		f.must(s.Terminate(ctx))
	}
	life()
	life()
	text, err := os.ReadFile(file)
	f.must(err)
	var said []string
	for line := range bytes.Lines(text) {
		var l struct{ Time, Level, Msg string }
		if err := json.Unmarshal(line, &l); err != nil || l.Time == "" || l.Level != "INFO" {
			t.Errorf("%q: %v", line, err)
		}
		said = append(said, l.Msg)
	}
	if got := strings.Join(said, " "); got != "started stopped started stopped" {
		t.Errorf("it says %q", got)
	}
	f.must(os.Truncate(file, 2<<20))
	life()
	if info, err := os.Stat(file); err != nil || info.Size() > 1000 {
		t.Errorf("it was not begun anew: %v, %v", info, err)
	}
	if info, err := os.Stat(file + ".1"); err != nil || info.Size() != 2<<20 {
		t.Errorf("the older one is %v, %v", info, err)
	}
}

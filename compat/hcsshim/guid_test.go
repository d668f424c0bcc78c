package hcsshim_test

import (
	"os"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/compat/hcsshim"
	"github.com/hostcompute/hcs/compat/hcsshim/wclayer"
)

func TestNameToGuid(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/nametoguid.txt")
	if err != nil {
		t.Fatal(err)
	}
	pairs := 0
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		pairs++
		id, err := hcsshim.NameToGuid(f[0])
		if err != nil || id.ToString() != f[1] {
			t.Errorf("NameToGuid(%q) = %s, %v, want %s", f[0], id.ToString(), err, f[1])
		}
		for _, p := range []string{`C:\layers\` + f[0], "/layers/" + f[0], f[0]} {
			if id, err := wclayer.LayerID(t.Context(), p); err != nil || id.String() != f[1] {
				t.Errorf("LayerID(%q) = %s, %v, want %s", p, id, err, f[1])
			}
		}
	}
	if pairs < 20 {
		t.Errorf("only %d pairs were tried", pairs)
	}
}

func TestNewGUID(t *testing.T) {
	t.Parallel()
	// The first bytes of SHA-1("abc"), a9993e36 4706 816a ba3e 25717850c26c.
	if got := hcsshim.NewGUID("abc").ToString(); got != "363e99a9-0647-6a81-ba3e-25717850c26c" {
		t.Errorf("got %s", got)
	}
}

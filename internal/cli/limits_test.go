package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/layer"
)

func TestLimitFlags(t *testing.T) {
	t.Parallel()
	var l limitFlags
	for i, name := range l.names() {
		if err := l.Set(name + "=" + strings.Repeat("1", i+1)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The names are sorted, those of layers first.
	want := hcs.Limits{
		Layer: layer.Limits{
			Bytes: 1, Depth: 11, Entries: 111, EntryBytes: 1111, HeaderBytes: 11111, NameBytes: 111111, Ratio: 1111111,
			Window: 11111111, XattrBytes: 111111111, Xattrs: 1111111111,
		},
		Image: image.Limits{Depth: 11111111111, Indexes: 111111111111},
	}
	if d := cmp.Diff(want, l.Limits); d != "" {
		t.Errorf("limits (-want +got):\n%s", d)
	}
	for flag, want := range map[string]int64{"bytes=none": -1, "bytes=2g": 2 << 30, "bytes=1024": 1024} {
		if err := l.Set(flag); err != nil || l.Layer.Bytes != want {
			t.Errorf("%s: %d, %v", flag, l.Layer.Bytes, err)
		}
	}
	for flag, says := range map[string]string{
		"": "no limit is called", "size=1": `no limit is called "size"`, "Bytes=1": "no limit", "bytes": "limit bytes",
		"bytes=-1": "limit bytes", "entries=0": "limit of 0", "indexes=none": "limit indexes", "depth=x": "limit depth",
	} {
		if err := l.Set(flag); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want an error with %q", flag, err, says)
		}
	}
}

package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
)

// limitFlags are what an image may cost: the flag --limit, given for each.
type limitFlags struct{ hcs.Limits }

var _ pflag.Value = (*limitFlags)(nil)

func (l *limitFlags) addFlag(f *pflag.FlagSet) {
	f.Var(l, "limit", "bound what an image may cost, `NAME=NUMBER|none`; names: "+strings.Join(l.names(), ", "))
}

// ofLayers returns the limits by the names that the flag has for them: those
// of each layer, which may be lifted.
func (l *limitFlags) ofLayers() map[string]any {
	return map[string]any{
		"bytes": &l.Layer.Bytes, "entry-bytes": &l.Layer.EntryBytes, "entries": &l.Layer.Entries,
		"header-bytes": &l.Layer.HeaderBytes, "depth": &l.Layer.Depth, "name-bytes": &l.Layer.NameBytes,
		"xattrs": &l.Layer.Xattrs, "xattr-bytes": &l.Layer.XattrBytes, "ratio": &l.Layer.Ratio, "window": &l.Layer.Window,
	}
}

func (l *limitFlags) ofIndexes() map[string]any {
	return map[string]any{"index-depth": &l.Image.Depth, "indexes": &l.Image.Indexes}
}

func (l *limitFlags) names() []string {
	return slices.Concat(slices.Sorted(maps.Keys(l.ofLayers())), slices.Sorted(maps.Keys(l.ofIndexes())))
}

// Set reads one limit.
func (l *limitFlags) Set(s string) error {
	name, value, _ := strings.Cut(s, "=")
	field := l.ofLayers()[name]
	if value == "none" && field != nil {
		return setLimit(field, -1)
	}
	if field == nil {
		field = l.ofIndexes()[name]
	}
	if field == nil {
		return fmt.Errorf("no limit is called %q (there are: %s)", name, strings.Join(l.names(), ", "))
	}
	n, err := parseSize(value)
	if err != nil {
		return fmt.Errorf("limit %s: %w", name, err)
	}
	if n == 0 {
		return fmt.Errorf("limit %s: nothing can keep to a limit of 0", name)
	}
	return setLimit(field, n)
}

func setLimit(field any, n int64) error {
	switch field := field.(type) {
	case *int64:
		*field = n
	case *int:
		if *field = int(n); int64(*field) != n {
			return errors.New("the limit is too large")
		}
	}
	return nil
}

// String and Type are for the usage, which says nothing of defaults.
func (*limitFlags) String() string { return "" }

// Type is what a value is called.
func (*limitFlags) Type() string { return "limit" }

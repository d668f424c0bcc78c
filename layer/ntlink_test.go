package layer_test

import (
	"testing"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// linkOf returns where a link leads, and whether it is a junction.
func linkOf(t testing.TB, e *layer.Entry) (string, bool) {
	t.Helper()
	l, err := ntfs.ParseLink(e.NT.Reparse)
	must(t, err)
	return l.Target(), l.Tag == ntfs.TagMountPoint
}

package rootfs_test

import (
	"archive/tar"
	"testing"

	"github.com/hostcompute/hcs/rootfs"
)

// TestUnpackTreeHiddenLinks has hard links to what upper layers hide: every name gets the file that was there when the link
// was made, and names of one file stay that.
func TestUnpackTreeHiddenLinks(t *testing.T) {
	t.Parallel()
	for name, layers := range map[string][][]tar.Header{
		"first name rewritten": {
			{file("a", "old"), hardlink("b", "a"), file("b", "new"), hardlink("c", "a")},
			{file("a", "upper")},
		},
		"first name rewritten twice": {
			{file("a", "old"), hardlink("b", "a"), hardlink("d", "a"), file("b", "new"), hardlink("c", "b"), file("b", "newer"), hardlink("e", "a")},
			{file("a", "upper")},
		},
		"hidden link to what is hidden": {
			{file("a", "old"), hardlink("h", "a"), hardlink("b", "a"), hardlink("c", "h")},
			{file("a", "upper"), file("h", "upper")},
		},
		"hidden link to what is hidden and rewritten": {
			{file("a", "old"), hardlink("h", "a"), file("a", "new"), hardlink("b", "a"), hardlink("c", "h"), hardlink("d", "h")},
			{file("a", "upper"), file("h", "upper")},
		},
		"wanted by an upper layer": {
			{file("a", "old"), hardlink("h", "a"), hardlink("b", "h")},
			{hardlink("c", "a"), hardlink("d", "h")},
			{file("a", "upper"), file("h", "upper")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var blobs [][]byte
			for _, headers := range layers {
				blobs = append(blobs, tarOf(t, headers...))
			}
			for writers := range 3 {
				compareWithOrder(t, blobs, rootfs.TreeOptions{Writers: 1 + writers})
			}
		})
	}
}

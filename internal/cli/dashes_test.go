package cli

import (
	"slices"
	"strings"
	"testing"
)

func TestDoubleDashes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"ls -layout l", "ls --layout l"},
		{"-log=debug -verbose stat -json -image=l:b", "--log=debug --verbose stat --json --image=l:b"},
		{"config --config.cmd -image -image l:b --config.cmd=-x -tag -layout", "config --config.cmd -image --image l:b --config.cmd=-x --tag -layout"},
		{"raw config -rootfs r out", "raw config --rootfs r out"},
		{"config -os linux -rootfs r", "config --os linux -rootfs r"},
		{"-h", "-h"},
		{"ls -bogus -layout l -- -layout", "ls -bogus --layout l -- -layout"},
		{"unpack b -image", "unpack b --image"},
	} {
		if got := doubleDashes(newUmoci(&app{}), strings.Fields(c.in)); !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%s: %q, want %s", c.in, got, c.want)
		}
	}
}

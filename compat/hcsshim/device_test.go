package hcsshim

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDeviceClasses looks for the devices of each class: those that the machine has, or an error that says what it has none of.
func TestDeviceClasses(t *testing.T) {
	t.Parallel()
	for id, class := range deviceClasses {
		var want []string
		for _, pattern := range class.nodes {
			found, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, found...)
		}
		for _, form := range []string{id, "{" + strings.ToUpper(id) + "}"} {
			got, err := (&AssignedDevice{InterfaceClassGUID: form}).paths()
			if len(want) > 0 && (err != nil || !slices.Equal(got, want)) {
				t.Errorf("%s: %q, %v", form, got, err)
			}
			if len(want) == 0 && (!IsNotSupported(systemFailure(err, "x", "x", "")) || !strings.Contains(err.Error(), class.name)) {
				t.Errorf("%s: %q, %v", form, got, err)
			}
		}
	}
}

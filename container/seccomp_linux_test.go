package container

import (
	"bytes"
	"os"
	"runtime"
	"testing"
)

// TestDefaultFilter holds the filter that is kept against the profile that it
// was compiled from. The profile has one for the machine that it runs on.
func TestDefaultFilter(t *testing.T) {
	t.Parallel()
	want, err := compileDefault()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(filterFile(runtime.GOARCH), want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(filterFile(runtime.GOARCH))
	if os.IsNotExist(err) {
		t.Skipf("none is kept for %s", runtime.GOARCH)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the profile compiles to: run this test with -update", filterFile(runtime.GOARCH))
	}
	if used, err := defaultProgram(); err != nil || !bytes.Equal(used, want) && !*update {
		t.Errorf("another one is used: %v", err)
	}
}

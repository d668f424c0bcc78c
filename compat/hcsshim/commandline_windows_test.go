package hcsshim

import (
	"slices"
	"syscall"
	"testing"
	"unsafe"
)

// TestSplitAsWindows asks the system about all lines of a few letters.
func TestSplitAsWindows(t *testing.T) {
	t.Parallel()
	lines := []string{""}
	for n := 0; n < len(lines) && len(lines[n]) < 7; n++ {
		for _, c := range []string{"a", " ", `\`, `"`} {
			lines = append(lines, lines[n]+c)
		}
	}
	for _, rest := range lines {
		line := "x " + rest
		if got, want := splitCommandLine(line), systemSplit(t, line); !slices.Equal(got, want) {
			t.Fatalf("%q: got %q, the system has %q", line, got, want)
		}
	}
}

func systemSplit(t *testing.T, line string) []string {
	t.Helper()
	text, err := syscall.UTF16PtrFromString(line)
	if err != nil {
		t.Fatal(err)
	}
	var n int32
	argv, err := syscall.CommandLineToArgv(text, &n)
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, arg := range argv[:n] {
		args = append(args, syscall.UTF16ToString(arg[:]))
	}
	if _, err := syscall.LocalFree(syscall.Handle(unsafe.Pointer(argv))); err != nil {
		t.Fatal(err)
	}
	return args
}

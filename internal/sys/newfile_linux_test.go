package sys_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hostcompute/hcs/internal/sys"
)

// TestNewFile publishes a file, a second of the same name, and discards one: nothing but the first is ever in the directory.
func TestNewFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "name")
	expect := func(want ...string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != len(want) || len(want) > 0 && entries[0].Name() != want[0] {
			t.Fatalf("%v, %v; want %v", entries, err, want)
		}
	}
	for range 2 {
		f, err := sys.CreateNew(dir, ".new-")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("content"); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(name); err != nil {
			expect()
		}
		if err := f.Publish(name); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(name); string(text) != "content" {
			t.Fatalf("%q, %v", text, err)
		}
		expect("name")
	}
	f, err := sys.CreateNew(dir, ".new-")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Discard(); err != nil {
		t.Fatal(err)
	}
	expect("name")
	if _, err := sys.CreateNew(name, ".new-"); err == nil {
		t.Error("a file in a file")
	}
	if f, err = sys.CreateNew(dir, ".new-"); err != nil {
		t.Fatal(err)
	}
	if err := f.Publish(filepath.Join(dir, "missing", "name")); err == nil {
		t.Error("published where there is no directory")
	}
	expect("name")
}

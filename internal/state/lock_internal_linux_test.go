package state

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// These two tests stand in the gap between two system calls, where no outsider can stop a process.

func TestClaimOfRemovedFileIsRefused(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "lock")
	waiter := openLock(t, name)
	holder := &Lock{file: openLock(t, name), record: name + ".record"}
	if err := claim(holder.file, exclusive); err != nil {
		t.Fatal(err)
	}
	if err := holder.Unlock(); err != nil { // removes the file, which has no record
		t.Fatal(err)
	}
	if err := claim(waiter, exclusive); !errors.Is(err, errUnlinked) {
		t.Errorf("the name leads nowhere: got %v, want errUnlinked", err)
	}
	openLock(t, name)
	if err := claim(waiter, shared); !errors.Is(err, errUnlinked) {
		t.Errorf("the name leads to another file: got %v, want errUnlinked", err)
	}
}

func TestSweepSparesTheNextHoldersFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "lock")
	late := &Lock{file: openLock(t, name), record: name + ".record"}
	if err := claim(late.file, shared); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	next := openLock(t, name)
	if err := claim(next, exclusive); err != nil {
		t.Fatal(err)
	}
	if err := late.Unlock(); err != nil {
		t.Fatal(err)
	}
	if !isNamed(next) {
		t.Error("Unlock of the old file removed the new one, which is held")
	}
}

func openLock(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

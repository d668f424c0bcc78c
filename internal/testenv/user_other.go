//go:build !linux

package testenv

import (
	"errors"
	"os/exec"
	"runtime"
	"testing"
)

// NewUser is for Linux: the test is skipped.
func NewUser(t testing.TB, _ SubIDs) *User {
	t.Helper()
	need(t, "Linux", errors.New("this is "+runtime.GOOS))
	return nil
}

// Command is for Linux.
func (*User) Command([]string, ...string) *exec.Cmd { return nil }

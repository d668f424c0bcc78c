package testenv

import (
	"os"
	"testing"
)

// BuiltPrograms is the environment variable with a directory of hcs, hcs-shim and hcs-agent, for tests that are not run by
// root: nobody can build.
const BuiltPrograms = "HCS_TEST_PROGRAMS"

// User is an ordinary user, who has a directory of his own and, if he was given them, subordinate ids.
type User struct {
	// Home belongs to the user. Everything that commands leave there is removed after the test.
	Home string

	etc  string // lies over /etc in the user's commands; empty for this process's own user
	path string // of the programs
}

// SubIDs says which ids an ordinary user has beside his own.
type SubIDs int

const (
	// OneID is his own alone.
	OneID SubIDs = iota
	// ManyIDs are 65536 from FirstSubID on.
	ManyIDs
)

// The ids of the users that tests run by root make up.
const (
	UserID     = 54321
	FirstSubID = 1_000_000_000
)

// builtPrograms returns the directory of the programs, which every user can read.
func builtPrograms(t testing.TB) string {
	t.Helper()
	if programs != "" {
		return programs
	}
	dir := os.Getenv(BuiltPrograms)
	_, err := os.Stat(dir)
	need(t, "programs in the directory of "+BuiltPrograms, err)
	return dir
}

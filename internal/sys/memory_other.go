//go:build !linux

package sys

import "os"

// MapMemory is for Linux.
func MapMemory(int) ([]byte, error) { return nil, errNotOnThisOS }

// UnmapMemory is for Linux.
func UnmapMemory([]byte) error { return errNotOnThisOS }

// UnnamedFile is for Linux.
func UnnamedFile(string, string) (*os.File, error) { return nil, errNotOnThisOS }

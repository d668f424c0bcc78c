//go:build !linux

package state

// syncDir does nothing: directories cannot be fsynced everywhere, and the system itself runs on Linux only.
func syncDir(string) error { return nil }

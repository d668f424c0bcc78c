package registry

import "time"

// SetFirstPause is for tests that want to see transfers given up.
func SetFirstPause(d time.Duration) { firstPause = d }

// IsLoopback is isLoopback.
func IsLoopback(host string) bool { return isLoopback(host) }

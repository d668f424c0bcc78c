package testenv

import (
	"runtime"
	"time"
)

// AwaitKill is for a process of a test that is to be killed: it does not return. What the process holds until then it is given
// to keep, as a lock or a pipe that nothing points at is closed with the garbage. An empty select would be taken for a deadlock,
// and end the process early, where no other goroutine can run.
func AwaitKill(held ...any) {
	for {
		time.Sleep(time.Hour)
		runtime.KeepAlive(held)
	}
}

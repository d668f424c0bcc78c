package testenv

import "time"

// AwaitKill is for a process of a test that is to be killed: it does not return. An empty select would be taken for a
// deadlock, and end the process early, where no other goroutine can run.
func AwaitKill() {
	for {
		time.Sleep(time.Hour)
	}
}

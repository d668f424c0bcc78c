//go:build !linux

package agent

// Main returns the exit status of a program that cannot work here.
func Main() int {
	println("hcs-agent: runs on Linux only")
	return 1
}

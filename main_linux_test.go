package hcs_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// inPrivateMounts runs this program again in a mount namespace where each of
// the directories is an empty tmpfs, and returns its exit status; in that
// second run it returns true.
func inPrivateMounts(dirs ...string) (status int, ours bool) {
	const mark = "HCS_TEST_PRIVATE_MOUNTS"
	if os.Getenv(mark) != "" {
		for _, dir := range dirs {
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
				fmt.Fprintf(os.Stderr, "mount a tmpfs on %s: %v\n", dir, err)
				return 1, false
			}
		}
		return 0, true
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // with private propagation
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), false
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, false
	}
	return 0, false
}

//go:build !linux

package cli

import (
	"errors"
	"os"
	"os/exec"
)

// become runs another program and ends with its exit status.
func become(program string, args []string) error {
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if x, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(x.ExitCode())
	}
	return err
}

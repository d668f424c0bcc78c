package hcsshim_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs/compat/hcsshim"
)

// helper is the environment variable that makes this test program one of the processes that TestProcesses starts.
const helper = "HCS_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helper) != "" {
		if err := cycle(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// cycle brings a layer up and down for as long as its reader wants, and writes a byte for each time.
func cycle(home, id string, parents []string) error {
	info := hcsshim.DriverInfo{HomeDir: home}
	in := bufio.NewReader(os.Stdin)
	for {
		if err := errors.Join(up(info, id, parents), down(info, id)); err != nil {
			return err
		}
		if _, err := os.Stdout.WriteString("."); err != nil {
			return err
		}
		if _, err := in.ReadByte(); err != nil {
			return nil //nolint:nilerr // the end
		}
	}
}

func up(info hcsshim.DriverInfo, id string, parents []string) error {
	return errors.Join(hcsshim.ActivateLayer(info, id), hcsshim.PrepareLayer(info, id, parents))
}

// down takes a layer down as containerd does it that was told nothing of its state: two codes are no failures.
func down(info hcsshim.DriverInfo, id string) error {
	err := hcsshim.UnprepareLayer(info, id)
	if c := code(err); c == notActive || c == notPrepared {
		err = nil
	}
	return errors.Join(err, hcsshim.DeactivateLayer(info, id))
}

// The codes that UnprepareLayer has for layers that are not active and not prepared.
const (
	notActive   = syscall.Errno(0x37)
	notPrepared = syscall.Errno(0x801f0015)
)

// code returns the Windows error in what a layer call returned, as clients find it.
func code(err error) syscall.Errno {
	e, ok := err.(*hcsshim.HcsError) //nolint:errorlint // as clients do it
	if !ok {
		return 0
	}
	c, _ := e.Err.(syscall.Errno) //nolint:errorlint // as clients do it
	return c
}

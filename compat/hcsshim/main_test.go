package hcsshim_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs/compat/hcsshim"
	"github.com/hostcompute/hcs/internal/testenv"
)

// helper is the environment variable that makes this test program one of the processes that tests start, and says which.
const helper = "HCS_TEST_HELPER"

// helpers are what such a process does with its arguments.
var helpers = map[string]func(args []string) error{
	"cycle": func(args []string) error { return cycle(args[0], args[1], args[2:]) },
}

func TestMain(m *testing.M) {
	if help := helpers[os.Getenv(helper)]; help != nil {
		if err := help(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(inStateDirectories(func() int { return testenv.Main(m) }))
}

// inStateDirectories runs the tests with state directories of their own.
func inStateDirectories(run func() int) int {
	dir, err := os.MkdirTemp("", "hcs-compat-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		err = errors.Join(os.Setenv("HCS_ROOT", filepath.Join(dir, "root")), os.Setenv("HCS_RUN", filepath.Join(dir, "run")))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
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

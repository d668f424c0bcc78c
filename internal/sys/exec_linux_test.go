package sys

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestExec has a process of this test's become a program, with no room for data that it does not have already.
func TestExec(t *testing.T) {
	const role = "HCS_TEST_EXEC"
	if os.Getenv(role) != "" {
		x, err := PrepareExec("/bin/sh", []string{"sh", "-c", "exit $STATUS"}, []string{"STATUS=7"})
		must(t, err)
		const enough = 1 << 20 // for a shell; a Go program has more
		must(t, syscall.Setrlimit(syscall.RLIMIT_DATA, &syscall.Rlimit{Cur: enough, Max: enough}))
		t.Fatal(x.Become())
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestExec$")
	cmd.Env = append(os.Environ(), role+"=1", "GOMAXPROCS=1", "GOGC=off")
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 7 {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestExecFails(t *testing.T) {
	x, err := PrepareExec("/no/such/program", []string{"x"}, nil)
	must(t, err)
	if errno := x.Become(); errno != syscall.ENOENT {
		t.Errorf("got %v", errno)
	}
	if _, err := PrepareExec("a\x00b", nil, nil); err == nil {
		t.Error("a name of two")
	}
}

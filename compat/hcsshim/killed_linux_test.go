package hcsshim_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/compat/hcsshim"
)

// TestKilled kills a program wherever it is in the life of a container that mounts its layer: what the container is then can be
// ended, and nothing of it is left.
func TestKilled(t *testing.T) {
	m := newMachine(t)
	dir := m.scratch("scratch")
	for range 25 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], dir, m.base)
		cmd.Env, cmd.Stderr = append(os.Environ(), helper+"=churn"), os.Stderr
		out, err := cmd.StdoutPipe()
		check(t, errors.Join(err, cmd.Start()))
		_, err = bufio.NewReader(out).ReadByte() // a life is over, and the next has begun
		check(t, err)
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond) // any place will do
		check(t, cmd.Process.Kill())
		_ = cmd.Wait()
		c, err := hcsshim.OpenContainer("web")
		if err == nil {
			err = errors.Join(ended(c), c.Close())
		}
		if err != nil && !hcsshim.IsNotExist(err) {
			t.Fatal(err)
		}
		if active, prepared := scratchState(t, dir); active || prepared {
			t.Fatalf("the layer is active: %t, prepared: %t", active, prepared)
		}
		prune(t) // what was killed before it had a name
	}
}

// churn has containers live and die until it is killed, and writes a byte for each.
func churn(args []string) error {
	config := &hcsshim.ContainerConfig{LayerFolderPath: args[0], Layers: []hcsshim.Layer{{Path: args[1]}}}
	for {
		c, err := hcsshim.CreateContainer("web", config)
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			return err
		}
		p, err := c.CreateProcess(&hcsshim.ProcessConfig{CommandLine: "true"})
		if err == nil {
			err = errors.Join(p.Wait(), p.Close())
		}
		if err = errors.Join(err, ended(c), c.Close()); err != nil {
			return err
		}
		if _, err := fmt.Print("."); err != nil {
			return err
		}
	}
}

func init() { helpers["churn"] = churn }

// TestTwoAtOnce has several create one container at once: one does, and its layer is not the others' to take down.
func TestTwoAtOnce(t *testing.T) {
	m := newMachine(t)
	dir := m.scratch("scratch")
	for range 5 {
		var made atomic.Pointer[hcsshim.Container]
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				c, err := hcsshim.CreateContainer("web", &hcsshim.ContainerConfig{LayerFolderPath: dir, Layers: m.layers()})
				if err == nil && !made.CompareAndSwap(nil, &c) {
					t.Error("two have created it")
				}
			})
		}
		wg.Wait()
		if made.Load() == nil {
			t.Fatal("none has created it")
		}
		c := *made.Load()
		if active, prepared := scratchState(t, dir); !active || !prepared {
			t.Fatalf("the layer is active: %t, prepared: %t", active, prepared)
		}
		check(t, c.Start())
		m.output(c, "true")
		// And as many end it.
		for range 4 {
			wg.Go(func() {
				other, err := hcsshim.OpenContainer("web")
				if err == nil {
					err = errors.Join(ended(other), other.Close())
				}
				if err != nil && !hcsshim.IsNotExist(err) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		check(t, errors.Join(ended(c), c.Close()))
		if active, prepared := scratchState(t, dir); active || prepared {
			t.Fatalf("the layer is active: %t, prepared: %t", active, prepared)
		}
	}
}

// shimOf returns the pid of a container's shim.
func shimOf(t *testing.T, id string) int {
	t.Helper()
	h, err := hcs.Open(hcs.Config{Root: os.Getenv("HCS_ROOT"), Run: os.Getenv("HCS_RUN")})
	check(t, err)
	system, err := h.Containers().Open(t.Context(), id)
	check(t, err)
	status, err := system.Status(t.Context())
	check(t, err)
	check(t, system.Close())
	return status.ShimPid
}

// TestShimDies kills what holds a container: everybody is told, and the id is free again.
func TestShimDies(t *testing.T) {
	m := newMachine(t)
	dir := m.scratch("scratch")
	config := &hcsshim.ContainerConfig{LayerFolderPath: dir, Layers: m.layers()}
	for range 2 {
		c, err := hcsshim.CreateContainer("web", config)
		check(t, err)
		check(t, c.Start())
		other, err := hcsshim.OpenContainer("web")
		check(t, err)
		p := m.shell(c, "sleep 1000")
		check(t, syscall.Kill(shimOf(t, "web"), syscall.SIGKILL))
		expect(t, "wait for the process", p.Wait(), hcsshim.ErrUnexpectedProcessAbort)
		expect(t, "wait", c.WaitTimeout(time.Minute), hcsshim.ErrUnexpectedProcessAbort)
		if err := other.WaitTimeout(time.Minute); err != nil && !errors.Is(err, hcsshim.ErrUnexpectedProcessAbort) {
			t.Errorf("another handle: %v", err) // nil where it found all removed
		}
		expect(t, "terminate", c.Terminate(), hcsshim.ErrVmcomputeAlreadyStopped)
		if active, prepared := scratchState(t, dir); active || prepared {
			t.Fatalf("the layer is active: %t, prepared: %t", active, prepared)
		}
		check(t, errors.Join(p.Close(), c.Close(), other.Close()))
	}
}

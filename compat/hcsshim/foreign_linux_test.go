package hcsshim_test

import (
	"errors"
	"os"
	"testing"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/compat/hcsshim"
	"github.com/hostcompute/hcs/container"
)

// TestForeign opens a container that the command hcs might have made: with a main process, and kept when it has stopped.
func TestForeign(t *testing.T) {
	m := newMachine(t)
	h, err := hcs.Open(hcs.Config{Root: os.Getenv("HCS_ROOT"), Run: os.Getenv("HCS_RUN")})
	check(t, err)
	ctx := t.Context()
	s, err := h.Containers().Create(ctx, container.Spec{Name: "web", RootDir: m.volume("web"), WriteInPlace: true})
	check(t, err)
	t.Cleanup(func() { check(t, errors.Join(s.Delete(ctx), s.Close())) })
	check(t, s.StartForMain(ctx))
	main, err := s.CreateProcess(ctx, &container.ProcessSpec{Role: container.Main, Args: []string{"sleep", "1000"}})
	check(t, err)
	for _, id := range []string{"web", s.ID()} {
		c, err := hcsshim.OpenContainer(id)
		check(t, err)
		if got := m.output(c, "echo inside"); got != "inside\n" {
			t.Errorf("it says %q", got)
		}
		check(t, c.Close())
	}
	want := func(state string, stopped bool) {
		t.Helper()
		list, err := hcsshim.GetContainers(hcsshim.ComputeSystemQuery{IDs: []string{"web"}})
		if err != nil || len(list) != 1 || list[0].State != state || list[0].Stopped != stopped || list[0].Owner != "" {
			t.Errorf("the list is %+v, %v", list, err)
		}
	}
	want("Running", false)
	c, err := hcsshim.OpenContainer("web")
	check(t, err)
	p, err := c.OpenProcess(main.Pid())
	check(t, err)
	check(t, errors.Join(p.Kill(), p.Wait(), c.Wait())) // its end is the container's
	if code, err := p.ExitCode(); code != 137 || err != nil {
		t.Errorf("the exit code is %d, %v", code, err)
	}
	expect(t, "start what has stopped", c.Start(), hcsshim.ErrVmcomputeAlreadyStopped)
	check(t, errors.Join(p.Close(), c.Close()))
	want("Stopped", true)
	if st, err := s.Status(ctx); st.State != container.Stopped || err != nil {
		t.Errorf("it is not kept: %+v, %v", st, err)
	}
}

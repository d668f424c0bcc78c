package container_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/rootfs"
)

// programRole is set for this test's own program where it is to be another
// program that has a system open, until it is killed.
const programRole = "HCS_TEST_PROGRAM"

// programOrder is what such a program does.
type programOrder struct {
	host
	System string // to open
	Start  bool   // it
	Script string // of a process to create, with streams for others
	Volume *volumeOrder
}

// volumeOrder has the program create the system itself, on a volume.
type volumeOrder struct{ Dir, Lower string }

// create makes a system that does not run, and mounts the volume for it.
func (o *volumeOrder) create(ctx context.Context, service *container.Service) (*container.System, error) {
	v, err := rootfs.OpenVolume(o.Dir)
	if err != nil {
		return nil, err
	}
	s, err := service.Create(ctx, container.Spec{
		RootDir: v.Root(), WriteInPlace: true, RootVolume: &container.RootVolume{Dir: o.Dir, Activated: true, Prepared: true},
	})
	if err != nil {
		return nil, err
	}
	return s, errors.Join(v.Activate(ctx), v.Prepare(ctx, []string{o.Lower}))
}

// run does what it is told, says the number of its process, and stays.
func (o *programOrder) run() error {
	ctx := context.Background()
	service, err := o.open()
	if err != nil {
		return err
	}
	open := func() (*container.System, error) { return service.Open(ctx, o.System) }
	if o.Volume != nil {
		open = func() (*container.System, error) { return o.Volume.create(ctx, service) }
	}
	s, err := open()
	if err != nil {
		return err
	}
	if o.Start {
		if err := s.Start(ctx); err != nil {
			return err
		}
	}
	pid, held := 0, []any{s}
	if o.Script != "" {
		p, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"sh", "-c", o.Script}, Env: env, Pipes: allPipes})
		if err != nil {
			return err
		}
		pid, held = p.Pid(), append(held, p)
	}
	fmt.Println("ready", pid)
	testenv.AwaitKill(held...)
	return s.Close()
}

// launch starts such a program.
func (f *fixture) launch(o programOrder) (*exec.Cmd, *bufio.Reader) {
	f.t.Helper()
	o.host = f.host()
	cmd, out := f.inRole(programRole, o)
	return cmd, bufio.NewReader(out)
}

// program starts such a program and returns it when it has done what it is
// told, with the number of its process.
func (f *fixture) program(o programOrder) (cmd *exec.Cmd, pid int) {
	f.t.Helper()
	cmd, out := f.launch(o)
	said, err := out.ReadString('\n')
	f.must(err)
	number, ok := strings.CutPrefix(strings.TrimSpace(said), "ready ")
	if !ok {
		f.t.Fatal(said)
	}
	pid, err = strconv.Atoi(number)
	f.must(err)
	return cmd, pid
}

func (f *fixture) killProgram(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// inChild has another program create a process, and then be killed; it returns
// the process's number.
func (f *fixture) inChild(s *container.System, script string) int {
	f.t.Helper()
	cmd, pid := f.program(programOrder{System: s.ID(), Script: script})
	f.killProgram(cmd)
	return pid
}

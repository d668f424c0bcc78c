package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/internal/state"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/userns"
	"github.com/hostcompute/hcs/internal/wire"
)

// Start brings the system to life: without a process of the caller's, which
// CreateProcess adds. A running system stays as it is; a stopped one starts
// again with what it has written.
func (s *System) Start(ctx context.Context) error { return s.startAs(ctx, wire.Spec{}) }

// StartForMain is Start for a caller that creates the main process next:
// should it die before it has, the system stops again.
func (s *System) StartForMain(ctx context.Context) error {
	return s.startAs(ctx, wire.Spec{NeedsProcess: true})
}

func (s *System) startAs(ctx context.Context, order wire.Spec) error {
	lock, err := s.service.records.Lock(ctx, s.record.ID)
	if err != nil {
		return s.wrap("start", err)
	}
	err = s.start(ctx, order, lock)
	return s.wrap("start", errors.Join(err, lock.Unlock()))
}

// start is startAs with the record's lock held. The shim holds it, too, until the
// system runs or is not to: nobody starts another if we are killed meanwhile.
func (s *System) start(ctx context.Context, order wire.Spec, lock *state.Lock) error {
	if up, err := s.isUp(ctx); err != nil || up {
		return err
	}
	record, err := s.service.records.Get(s.record.ID)
	if err != nil {
		return err
	}
	if err := s.awaitHandle(ctx); err != nil {
		return err
	}
	s.noteLost()
	id := record.ID
	if err := errors.Join(s.service.mayAttach(record.Spec.Endpoints), s.service.detach(ctx, id, nil)); err != nil {
		return err
	}
	order.ShowNetwork = len(record.Spec.Endpoints) > 0
	// As it is now: another System may have modified it, or given it another name.
	now := &System{service: s.service, record: record}
	before, _ := readStatus(s.statusFile())
	c, err := now.startShim(ctx, order, lock.File())
	if err != nil {
		return errors.Join(err, s.service.cleanUp(&s.record), s.neverStarted(before), s.service.detach(context.WithoutCancel(ctx), id, nil))
	}
	s.release(c)
	return s.letGo() // the record's lock keeps everybody away now
}

// neverStarted takes back what a shim that was killed while it started the
// system has left of that.
func (s *System) neverStarted(before wire.Status) error {
	st, err := readStatus(s.statusFile())
	switch {
	case err != nil || st.State != wire.Starting:
		return nil // the shim has seen to it, or had not come so far
	case before.State == "":
		return os.Remove(s.statusFile())
	}
	return s.leaveStatus(&before)
}

// prepare writes the run directory and completes what the shim is to do. The
// shim hears early how the first process is born, and has it begin meanwhile.
func (s *System) prepare(shim *wire.Conn, rt *Runtime, order wire.Spec) (*wire.Spec, error) {
	if err := s.service.cleanUp(&s.record); err != nil { // of a shim that died
		return nil, err
	}
	if err := s.service.mayMapIDs(s.record.IDs); err != nil { // the service may have another runtime by now
		return nil, err
	}
	dir := s.service.runDir(s.record.ID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	b, err := s.bundle(dir)
	if err != nil {
		return nil, err
	}
	if rt.Kind == nativeKind {
		order.Native, err = s.native(shim, b)
	} else {
		order.ID, order.Cgroup = b.record.ID, b.cgroup
		order.Runtime, err = rt.wire(), s.writeBundle(b)
	}
	if err != nil {
		return nil, err
	}
	return s.complete(order, dir)
}

// complete adds to the order what every starter needs.
func (s *System) complete(order wire.Spec, dir string) (*wire.Spec, error) {
	root, err := s.root()
	if err == nil {
		err = forgetVolatile(root)
	}
	if err != nil {
		return nil, err
	}
	if err := s.record.Spec.writeNetworkFiles(dir); err != nil {
		return nil, err
	}
	order.Dir, order.Root, order.Status = dir, *root, s.statusFile()
	order.Log = wire.Log{Path: s.logFile(), MaxSize: s.record.Spec.Log.maxSize(), MaxFiles: s.record.Spec.Log.maxFiles()}
	if s.record.Spec.HandleBound {
		order.Handles = s.handleFile()
	}
	order.Targets = s.record.targets()
	order.CountProcesses = s.record.Spec.Resources.Pids > 0
	for i := range s.record.Spec.Disks {
		d, err := s.record.Spec.Disks[i].wire((&bundle{runDir: dir}).diskDir(i))
		if err != nil {
			return nil, err
		}
		order.Disks = append(order.Disks, d)
	}
	order.Remove = []string{dir}
	order.Events = wire.Events{
		Dir: s.service.eventsDir(), Alive: s.service.alive(s.record.ID), Name: s.Name(), Image: s.record.Spec.Image,
		Ephemeral: s.record.Spec.Ephemeral,
	}
	if s.record.Spec.Ephemeral {
		order.Remove = s.everything(order.Events.Name)
	}
	return &order, nil
}

// everything lists what an Ephemeral system of that name leaves nothing of; the
// record's directory is last, and of what is in there the record goes first, as
// in removeDir.
func (s *System) everything(name string) []string {
	list := []string{
		s.service.runDir(s.record.ID), s.service.alive(s.record.ID), filepath.Join(s.service.namesDir(), name),
	}
	if sc, err := s.Scratch(); err == nil {
		list = append(list, sc.Path())
	}
	if ids := s.record.IDs; !ids.isHost() {
		list = append(list, s.service.idsLink(ids))
	}
	return append(list, filepath.Join(s.dir(), state.RecordName), s.dir())
}

// root says what the root directory is made of.
func (s *System) root() (*wire.Root, error) {
	spec := &s.record.Spec
	if spec.WriteInPlace {
		return &wire.Root{Dir: spec.RootDir}, spec.checkRootDir()
	}
	sc, err := s.Scratch()
	if err != nil {
		return nil, err
	}
	layers, err := s.service.layers(spec)
	if err != nil {
		return nil, err
	}
	o := s.service.cfg.Layers.Overlay(sc, "", layers...)
	if spec.RootDir != "" {
		o.Lower = []string{spec.RootDir}
		err = spec.checkRootDir()
	} else if len(o.Lower) > sys.MaxLower {
		err = fault(errdefs.ErrInvalidArgument, "stack %d layers: at most %d", len(o.Lower), sys.MaxLower)
	}
	return &wire.Root{Lower: o.Lower, Upper: o.Upper, Work: o.Work, UserXattr: o.UserXattr, Volatile: spec.Ephemeral}, err
}

// forgetVolatile removes overlayfs's mark of a mount that flushed nothing,
// which it would refuse to mount again for (Documentation/filesystems/overlayfs.rst,
// "Volatile mount"): one of a start that failed. What a machine that stopped has
// lost of it, it has lost of the record too.
func forgetVolatile(r *wire.Root) error {
	if !r.Volatile {
		return nil
	}
	return os.RemoveAll(filepath.Join(r.Work, "work", "incompat", "volatile"))
}

// bundle collects what the configuration depends on.
func (s *System) bundle(dir string) (*bundle, error) {
	spec := &s.record.Spec
	agent, err := s.service.libexec("hcs-agent")
	if err != nil {
		return nil, err
	}
	devices := make([]specs.LinuxDevice, len(spec.Devices))
	for i := range spec.Devices {
		if devices[i], err = spec.Devices[i].oci(); err != nil {
			return nil, err
		}
	}
	limited, err := s.limitedDisk(spec)
	if err != nil {
		return nil, err
	}
	disks, err := s.limitedDisks(spec)
	if err != nil {
		return nil, err
	}
	hasTTY, err := s.hasGroup(ttyGID)
	if err != nil {
		return nil, fmt.Errorf("read the user namespace's ids: %w", err)
	}
	return &bundle{
		record: &s.record, runDir: dir, cgroup: s.service.cgroup(s.record.ID), agent: agent,
		caps: spec.Security.capabilities(givable), devices: devices, disk: limited, disks: disks,
		hybrid: sys.HasV1Cgroups(), ttyGroup: hasTTY,
		rootless: !userns.IsInitial(), user: !userns.IsInitial() || !s.record.IDs.isHost(),
	}, nil
}

// hasGroup reports whether the system's user namespace has a group of the id.
func (s *System) hasGroup(gid uint32) (bool, error) {
	if ids := s.record.IDs; !ids.isHost() {
		return gid < ids.Size, nil
	}
	gids, err := userns.GIDs()
	return gids.Has(gid), err
}

func (s *System) writeBundle(b *bundle) error {
	var err error
	if b.seccomp, err = s.record.Spec.Security.seccompFilter(b.caps); err != nil {
		return fmt.Errorf("make the seccomp filter: %w", err)
	}
	text, err := json.Marshal(b.config())
	if err != nil {
		return fmt.Errorf("write the OCI configuration: %w", err)
	}
	return os.WriteFile(filepath.Join(b.runDir, "config.json"), text, 0o600)
}

// native makes the control groups, has the first process born in them, and
// returns what it is to make.
func (s *System) native(shim *wire.Conn, b *bundle) (*wire.Native, error) {
	group, err := sys.NewCgroup(b.cgroup)
	if err != nil {
		return nil, err
	}
	if err := group.Make(sys.CgroupLimits(b.nativeLimits(b.resources()))); err != nil {
		return nil, err
	}
	birth := b.birth()
	if err := shim.Send(wire.Message{Type: wire.Bear, Body: birth.Encode()}); err != nil && !errors.Is(err, syscall.EPIPE) {
		return nil, err
	}
	filter, err := s.record.Spec.Security.seccompProgram(b.caps)
	if err != nil {
		return nil, fmt.Errorf("make the seccomp filter: %w", err)
	}
	return b.native(group.V1Dirs(), filter)
}

// startShim starts the shim, in a session of its own, and returns the
// connection to it when the system runs. While the program starts, what it is to
// do is prepared.
func (s *System) startShim(ctx context.Context, order wire.Spec, lock *os.File) (_ *wire.Conn, err error) {
	program, err := s.service.libexec("hcs-shim")
	if err != nil {
		return nil, err
	}
	rt, err := s.service.Runtime()
	if err != nil {
		return nil, err
	}
	c, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	shim, err := s.execShim(program, s.mountsByPath(rt), theirs, lock)
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	spec, err := s.prepare(c, rt, order)
	if err != nil {
		c.Close() // which ends the shim, and the first process that there may be
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
		defer cancel()
		shim.awaitEnd(ctx)
		return nil, err
	}
	var reply wire.Message
	err = c.Send(wire.Message{Type: wire.Start, Body: spec.Encode()})
	if err == nil {
		reply, err = replyOn(ctx, c)
	}
	if err == nil && reply.Type == wire.Network {
		if aerr := s.attachShown(ctx, reply.Files); aerr != nil {
			s.giveUp(context.WithoutCancel(ctx), shim)
			return nil, aerr
		}
		err = c.Send(wire.Message{Type: wire.OK})
		if err == nil {
			_, err = replyOn(ctx, c)
		}
	}
	if err != nil {
		return nil, s.notStarted(ctx, shim, err)
	}
	return c, nil
}

// notStarted returns why; a shim that the caller does not want to wait for is
// ended.
func (s *System) notStarted(ctx context.Context, shim *child, err error) error {
	if ctx.Err() != nil {
		s.giveUp(context.WithoutCancel(ctx), shim)
		return context.Cause(ctx)
	}
	if isClosed(err) {
		text, _ := os.ReadFile(s.shimLog())
		return fault(errdefs.ErrUnavailable, "its shim died: %s", lastWord(text))
	}
	return classify(err)
}

// giveUp ends a shim that starts a system which nobody wants any more, or has
// started it without our knowing. The shim takes back what it has made, and the
// runtime that may be at work; one that does not is killed.
func (s *System) giveUp(ctx context.Context, shim *child) {
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	if c, err := wire.Dial(s.socket()); err == nil {
		_, _ = callOn(ctx, c, wire.Message{Type: wire.Revoke}) // however it answers, it ends
		c.Close()
	} else { // it has not begun to start anything, or is gone
		cancel()
	}
	shim.awaitEnd(ctx)
}

// mountsByPath is wire.Spec's MountsByPath before there is one.
func (s *System) mountsByPath(rt *Runtime) bool {
	return rt.Kind != nativeKind || len(s.record.Spec.Disks) > 0 || !s.record.IDs.isHost()
}

// execShim starts the shim's program, in a mount namespace of its own where it
// is to mount. Elsewhere that would cost every start a copy of all mounts, and
// keep file systems busy that the host unmounts without telling others.
func (s *System) execShim(program string, ownMounts bool, socket, lock *os.File) (*child, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	log, err := s.openShimLog()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// Without os/exec, which once a process forks another one to see whether it
	// can have a pidfd.
	args, attr := []string{"hcs-shim", s.service.runDir(s.record.ID)}, &syscall.SysProcAttr{Setsid: true}
	if ownMounts {
		args, attr.Cloneflags = append(args, wire.OwnMounts), syscall.CLONE_NEWNS
	}
	pid, err := syscall.ForkExec(program, args, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []uintptr{null.Fd(), null.Fd(), log.Fd(), socket.Fd(), lock.Fd()}, Sys: attr,
	})
	if err != nil {
		return nil, err
	}
	p := &child{pid: pid, ended: make(chan struct{})}
	go p.wait()
	return p, nil
}

// child is a process of ours that may end before we do.
type child struct {
	pid   int
	mu    sync.Mutex    // nobody signals it while it is reaped
	ended chan struct{} // closed when it has been
}

// wait reaps the process. It is in one step that the process ends for kill
// and that its number may be another's.
func (c *child) wait() {
	sys.AwaitEnd(c.pid)
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = syscall.Wait4(c.pid, nil, 0, nil)
	close(c.ended)
}

// awaitEnd returns when the process has ended, which it has to before the
// context does.
func (c *child) awaitEnd(ctx context.Context) {
	select {
	case <-c.ended:
	case <-ctx.Done():
		c.kill()
		<-c.ended
	}
}

func (c *child) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.ended:
	default:
		_ = syscall.Kill(c.pid, syscall.SIGKILL)
	}
}

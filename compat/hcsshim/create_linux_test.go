package hcsshim_test

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/compat/hcsshim"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/rootfs"
)

// scratchState says whether a scratch layer is active and prepared.
func scratchState(t *testing.T, dir string) (active, prepared bool) {
	t.Helper()
	v, err := rootfs.OpenVolume(dir)
	check(t, err)
	s, err := v.State()
	check(t, err)
	return s.Active, s.Prepared
}

// TestScratchLayer has containers mount their layers themselves: what they did is undone when they end, however that is.
func TestScratchLayer(t *testing.T) {
	m := newMachine(t)
	dir := m.scratch("scratch")
	config := func() *hcsshim.ContainerConfig {
		return &hcsshim.ContainerConfig{SystemType: "Container", LayerFolderPath: dir, Layers: m.layers()}
	}
	down := func(what string) {
		t.Helper()
		if active, prepared := scratchState(t, dir); active || prepared {
			t.Fatalf("%s: the layer is active: %t, prepared: %t", what, active, prepared)
		}
	}
	create := func() hcsshim.Container {
		t.Helper()
		c, err := hcsshim.CreateContainer("web", config())
		check(t, err)
		if active, prepared := scratchState(t, dir); !active || !prepared {
			t.Fatalf("the layer is active: %t, prepared: %t", active, prepared)
		}
		return c
	}

	// It writes into the layer, and the next container finds that.
	c := create()
	check(t, c.Start())
	m.output(c, "echo one >/made")
	check(t, errors.Join(ended(c), c.Close()))
	down("terminated")
	c = create()
	check(t, c.Start())
	if got := m.output(c, "cat /made"); got != "one\n" {
		t.Errorf("the layer has %q", got)
	}
	if err := c.Shutdown(); !hcsshim.IsPending(err) {
		t.Errorf("shutdown: %v", err)
	}
	check(t, errors.Join(c.Wait(), c.Close()))
	down("shut down")

	// It has never run.
	c = create()
	check(t, errors.Join(ended(c), c.Close()))
	down("never started")

	// Nobody waits.
	c = create()
	check(t, c.Start())
	expect(t, "terminate", c.Terminate(), hcsshim.ErrVmcomputeOperationPending)
	check(t, c.Close())
	for active := true; active; time.Sleep(time.Millisecond) {
		active, _ = scratchState(t, dir)
	}

	// Nobody is there when it ends: the next call finds it.
	for what, look := range map[string]func() error{
		"list": func() error {
			list, err := hcsshim.GetContainers(hcsshim.ComputeSystemQuery{})
			if len(list) > 0 {
				t.Errorf("the list has %+v", list)
			}
			return err
		},
		"open": func() error {
			if _, err := hcsshim.OpenContainer("web"); !hcsshim.IsNotExist(err) {
				return err
			}
			return nil
		},
		"create": func() error {
			c, err := hcsshim.CreateContainer("web", config())
			if err != nil {
				return err
			}
			return errors.Join(ended(c), c.Close())
		},
	} {
		help(t, "leave", "web", dir, m.base)
		if active, prepared := scratchState(t, dir); !active || !prepared {
			t.Fatalf("before %s the layer is active: %t, prepared: %t", what, active, prepared)
		}
		stopped(t, "web")
		check(t, look())
		down(what)
	}
}

// leave makes a container that ends when this program does, which it does without a word.
func leave(args []string) error {
	c, err := hcsshim.CreateContainer(args[0], &hcsshim.ContainerConfig{
		LayerFolderPath: args[1], Layers: []hcsshim.Layer{{Path: args[2]}}, TerminateOnLastHandleClosed: true,
	})
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	os.Exit(0)
	return nil
}

func init() { helpers["leave"] = leave }

// stopped waits until a container has stopped, without a handle.
func stopped(t *testing.T, id string) {
	t.Helper()
	h, err := hcs.Open(hcs.Config{Root: os.Getenv("HCS_ROOT"), Run: os.Getenv("HCS_RUN")})
	check(t, err)
	systems, err := h.Containers().Systems(t.Context())
	check(t, err)
	for _, s := range systems {
		if s.Name() == id {
			if _, err := s.Wait(t.Context()); err != nil && !errdefs.IsNotFound(err) {
				t.Error(err)
			}
		}
	}
}

// TestScratchOfCaller uses what the caller has done already, and leaves it.
func TestScratchOfCaller(t *testing.T) {
	m := newMachine(t)
	dir := m.scratch("scratch")
	config := &hcsshim.ContainerConfig{LayerFolderPath: dir, Layers: m.layers()}
	check(t, hcsshim.ActivateLayer(m.DriverInfo, "scratch"))
	c, err := hcsshim.CreateContainer("web", config)
	check(t, err)
	check(t, errors.Join(ended(c), c.Close()))
	if active, prepared := scratchState(t, dir); !active || prepared {
		t.Errorf("the layer is active: %t, prepared: %t", active, prepared)
	}
	check(t, hcsshim.PrepareLayer(m.DriverInfo, "scratch", []string{m.base}))
	c, err = hcsshim.CreateContainer("web", config)
	check(t, err)
	check(t, errors.Join(ended(c), c.Close()))
	if active, prepared := scratchState(t, dir); !active || !prepared {
		t.Errorf("the layer is active: %t, prepared: %t", active, prepared)
	}
	check(t, down(m.DriverInfo, "scratch"))
}

// TestCreateFails leaves nothing of what cannot be created.
func TestCreateFails(t *testing.T) {
	m := newMachine(t)
	dir := m.scratch("scratch")
	layers := m.layers()
	nothing := filepath.Join(m.HomeDir, "nothing")
	with := func(change func(*hcsshim.ContainerConfig)) *hcsshim.ContainerConfig {
		c := &hcsshim.ContainerConfig{LayerFolderPath: dir, Layers: layers}
		change(c)
		return c
	}
	for what, c := range map[string]struct {
		id, want string
		config   *hcsshim.ContainerConfig
	}{
		"no configuration":       {"web", "no configuration", nil},
		"no root":                {"web", "VolumePath", &hcsshim.ContainerConfig{}},
		"no layers":              {"web", "Layers", with(func(c *hcsshim.ContainerConfig) { c.Layers = nil })},
		"no id":                  {"", "0x57", &hcsshim.ContainerConfig{VolumePath: m.base}},
		"a bad id":               {"a/b", "a/b", with(func(*hcsshim.ContainerConfig) {})},
		"a root that is not":     {"web", "0x3)", &hcsshim.ContainerConfig{VolumePath: nothing}},
		"a parent that is not":   {"web", "0x3)", with(func(c *hcsshim.ContainerConfig) { c.Layers = []hcsshim.Layer{{Path: nothing}} })},
		"a scratch that is not":  {"web", "0x3)", with(func(c *hcsshim.ContainerConfig) { c.LayerFolderPath = nothing })},
		"a scratch that is none": {"web", "none", with(func(c *hcsshim.ContainerConfig) { c.LayerFolderPath = m.base })},
		"a directory that is not": {"web", nothing, with(func(c *hcsshim.ContainerConfig) {
			c.MappedDirectories = []hcsshim.MappedDir{{HostPath: nothing, ContainerPath: "/x"}}
		})},
		"a target of Windows'": {"web", "target", with(func(c *hcsshim.ContainerConfig) {
			c.MappedDirectories = []hcsshim.MappedDir{{HostPath: m.base, ContainerPath: `c:\x`}}
		})},
		"a pipe that is not": {"web", nothing, with(func(c *hcsshim.ContainerConfig) {
			c.MappedPipes = []hcsshim.MappedPipe{{HostPath: nothing, ContainerPipeName: "x"}}
		})},
		"a machine": {"web", "HvPartition", with(func(c *hcsshim.ContainerConfig) { c.HvPartition = true })},
	} {
		made, err := hcsshim.CreateContainer(c.id, c.config)
		if err == nil || made != nil || hcsshim.IsNotExist(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v", what, made, err)
		}
		if active, prepared := scratchState(t, dir); active || prepared {
			t.Fatalf("%s: the layer is active: %t, prepared: %t", what, active, prepared)
		}
		if list, err := hcsshim.GetContainers(hcsshim.ComputeSystemQuery{}); len(list) > 0 || err != nil {
			t.Fatalf("%s: left behind: %+v, %v", what, list, err)
		}
	}
	// Somebody is at work on the layer, for longer than there is time.
	lock := filepath.Join(dir, ".state", ".lock", "volume")
	check(t, os.MkdirAll(filepath.Dir(lock), 0o700))
	f, err := os.Create(lock)
	check(t, err)
	defer f.Close()
	check(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	t.Setenv("HCSSHIM_TIMEOUT_SYSTEMCREATE", "1")
	if _, err := hcsshim.CreateContainer("web", with(func(*hcsshim.ContainerConfig) {})); !hcsshim.IsTimeout(err) {
		t.Errorf("no time: %v", err)
	}
}

// TestConfig sees from inside what a configuration says, and what the environment adds to it.
func TestConfig(t *testing.T) {
	m := newMachine(t)
	dir, err := os.MkdirTemp("", "hcs") //nolint:usetesting // t.TempDir's are long, and a socket's path has a limit
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	check(t, err)
	defer l.Close()
	config := m.config("web")
	config.HostName, config.DNSSearchList, config.Credentials = "not-this", "a.example,b.example", "secret"
	config.ProcessorMaximum, config.ProcessorWeight, config.MemoryMaximumInMB = 10000, 50, 128
	config.StorageIOPSMaximum = 1000
	config.MappedPipes = []hcsshim.MappedPipe{{HostPath: l.Addr().String(), ContainerPipeName: "engine"}}
	t.Setenv("HCSSHIM_CREATECONTAINER_ADDITIONALJSON", `{"HostName":"this","MemoryMaximumInMB":64}`)
	c, err := hcsshim.CreateContainer("web", config)
	check(t, err)
	check(t, c.Start())
	if got := m.output(c, "hostname; test -S /run/engine && echo socket; cat /etc/resolv.conf"); got != "this\nsocket\nsearch a.example b.example\n" {
		t.Errorf("inside: %q", got)
	}
	limit := m.output(c, "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true")
	if limit != "" && strings.TrimSpace(limit) != "67108864" {
		t.Errorf("the memory limit is %q", limit)
	}
	limit = m.output(c, "cat /sys/fs/cgroup/io.max /sys/fs/cgroup/blkio/blkio.throttle.read_iops_device 2>/dev/null; true")
	if limit != "" && !strings.Contains(limit, "1000") {
		t.Errorf("the limit of the disk is %q", limit)
	}
	const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
	if got := m.output(c, "echo $PATH"); got != path {
		t.Errorf("without a PATH it has %q", got)
	}
	p, err := c.CreateProcess(&hcsshim.ProcessConfig{
		CommandLine: `sh -c "echo $A $(id -u):$(id -g) $(pwd)"`, Environment: map[string]string{"A": "b c"}, User: "1000:7",
		WorkingDirectory: "/tmp", CreateStdOutPipe: true,
	})
	check(t, err)
	if got := read(t, p); got != "b c 1000:7 /tmp\n" {
		t.Errorf("the process says %q", got)
	}
	check(t, errors.Join(ended(c), c.Close()))
}

// read returns what a process prints until its end.
func read(t *testing.T, p hcsshim.Process) string {
	t.Helper()
	_, out, _, err := p.Stdio()
	check(t, err)
	text, err := io.ReadAll(out)
	check(t, errors.Join(err, p.Wait(), out.Close(), p.Close()))
	return string(text)
}

// TestGetContainers selects containers by each thing that there is.
func TestGetContainers(t *testing.T) {
	m := newMachine(t)
	for _, id := range []string{"a", "b", "c"} {
		config := m.config(id)
		config.Name, config.Owner = "name-"+id, map[bool]string{true: "docker", false: "me"}[id == "c"]
		c, err := hcsshim.CreateContainer(id, config)
		check(t, err)
		if id != "a" {
			check(t, c.Start())
		}
		check(t, c.Close())
	}
	for _, c := range []struct {
		query hcsshim.ComputeSystemQuery
		want  string
	}{
		{hcsshim.ComputeSystemQuery{}, "a Created b Running c Running"},
		{hcsshim.ComputeSystemQuery{IDs: []string{"c", "a", "x"}}, "a Created c Running"},
		{hcsshim.ComputeSystemQuery{IDs: []string{"b"}, Owners: []string{"docker"}}, ""},
		{hcsshim.ComputeSystemQuery{Names: []string{"name-b"}}, "b Running"},
		{hcsshim.ComputeSystemQuery{Owners: []string{"docker"}}, "c Running"},
		{hcsshim.ComputeSystemQuery{Types: []string{"VirtualMachine"}}, ""},
		{hcsshim.ComputeSystemQuery{Types: []string{"Container"}, Owners: []string{"me"}}, "a Created b Running"},
	} {
		list, err := hcsshim.GetContainers(c.query)
		check(t, err)
		var got []string
		for _, p := range list {
			got = append(got, p.ID, p.State)
			if p.SystemType != "Container" || p.Name != "name-"+p.ID || p.Stopped {
				t.Errorf("the properties are %+v", p)
			}
		}
		if got := strings.Join(got, " "); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.query, got, c.want)
		}
	}
}

// TestModify gives a running container a directory and a disk, and takes them away again.
func TestModify(t *testing.T) {
	m := newMachine(t)
	testenv.NeedKernel(t, testenv.LoopDevices)
	mkfs := testenv.NeedCommand(t, "mkfs.ext4")[0]
	image := filepath.Join(m.HomeDir, "disk.img")
	check(t, os.WriteFile(image, nil, 0o600))
	check(t, os.Truncate(image, 8<<20))
	if out, err := exec.Command(mkfs, "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs: %v: %s", err, out)
	}
	shared := m.TempDir()
	check(t, os.WriteFile(filepath.Join(shared, "x"), []byte("here"), 0o600))
	c := m.running("web")
	dir := hcsshim.MappedDir{HostPath: shared, ContainerPath: "/shared", ReadOnly: true}
	disk := hcsshim.MappedVirtualDisk{HostPath: image, ContainerPath: "/disk"}
	modify := func(request hcsshim.RequestType, resource hcsshim.ResourceType, data any) error {
		return c.Modify(&hcsshim.ResourceModificationRequestResponse{Resource: resource, Data: data, Request: request})
	}
	check(t, errors.Join(modify(hcsshim.Add, "MappedDirectory", dir), modify(hcsshim.Add, "MappedVirtualDisk", disk)))
	if got := m.output(c, "cat /shared/x; echo; touch /shared/y 2>/dev/null || echo fixed; ls /disk; touch /disk/z"); got != "here\nfixed\nlost+found\n" {
		t.Errorf("inside: %q", got)
	}
	disks, err := c.MappedVirtualDisks()
	if err != nil || len(disks) != 1 || disks[0].MappedVirtualDisks[0] != disk {
		t.Errorf("the disks are %+v, %v", disks, err)
	}
	if err := modify(hcsshim.Add, "MappedDirectory", dir); err == nil || hcsshim.IsNotExist(err) {
		t.Errorf("added twice: %v", err)
	}
	check(t, errors.Join(modify(hcsshim.Remove, "MappedDirectory", dir), modify(hcsshim.Remove, "MappedVirtualDisk", disk)))
	if got := m.output(c, "ls /shared /disk"); strings.Contains(got, "x") || strings.Contains(got, "z") {
		t.Errorf("they are there: %q", got)
	}
	expect(t, "removed twice", modify(hcsshim.Remove, "MappedDirectory", dir), hcsshim.ErrElementNotFound)
	check(t, ended(c))
}

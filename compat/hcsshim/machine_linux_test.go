package hcsshim_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/compat/hcsshim"
	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// machine is what containers are made of: a base layer with busybox, and scratch layers on top of it.
type machine struct {
	*testing.T
	hcsshim.DriverInfo
	base string
}

// newMachine makes one. When the test ends, nothing of its containers may be left. Such tests run one after the other.
func newMachine(t *testing.T) *machine {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay, testenv.PidFD, testenv.Cgroups)
	dir := t.TempDir()
	root := sha256.Sum256([]byte(os.Getenv("HCS_ROOT"))) // which the containers' control group is named for
	testenv.NoLeaks(t, testenv.Scope{
		Dir: dir, Children: true, Cgroup: "/hcs/" + hex.EncodeToString(root[:6]), Settles: true,
	})
	t.Cleanup(func() { cleanUp(t) })
	base := filepath.Join(dir, "base")
	tar, err := os.Open(testenv.BusyboxLayer(t))
	check(t, err)
	_, err = rootfs.ImportLayer(t.Context(), base, nil, layer.NewReader(tar, layer.Limits{}), rootfs.NTOptions{})
	check(t, errors.Join(err, tar.Close()))
	return &machine{T: t, DriverInfo: hcsshim.DriverInfo{HomeDir: dir}, base: base}
}

// cleanUp ends what a test has left to run, and removes it.
func cleanUp(t *testing.T) {
	t.Helper()
	list, err := hcsshim.GetContainers(hcsshim.ComputeSystemQuery{})
	check(t, err)
	for _, p := range list {
		c, err := hcsshim.OpenContainer(p.ID)
		if err == nil {
			err = errors.Join(ended(c), c.Close())
		}
		if err != nil && !hcsshim.IsNotExist(err) {
			t.Errorf("clean up %s: %v", p.ID, err)
		}
	}
	if p := prune(t); len(p.Containers)+len(p.Leftovers) > 0 {
		t.Errorf("left behind: %+v", p)
	}
}

// prune removes what programs that died have left.
func prune(t *testing.T) container.Pruned {
	t.Helper()
	h, err := hcs.Open(hcs.Config{Root: os.Getenv("HCS_ROOT"), Run: os.Getenv("HCS_RUN")})
	check(t, err)
	p, err := h.Containers().Prune(context.Background()) // also when the test has ended
	check(t, err)
	return p
}

// ended terminates a container as clients do.
func ended(c hcsshim.Container) error {
	err := c.Terminate()
	if hcsshim.IsPending(err) {
		return c.WaitTimeout(time.Minute)
	}
	if hcsshim.IsAlreadyStopped(err) || hcsshim.IsNotExist(err) {
		return nil
	}
	return err
}

// layers are a container's as a configuration has them.
func (m *machine) layers() []hcsshim.Layer {
	m.Helper()
	id, err := hcsshim.NameToGuid(filepath.Base(m.base))
	check(m.T, err)
	return []hcsshim.Layer{{ID: id.ToString(), Path: m.base}}
}

// scratch makes a scratch layer and returns its directory.
func (m *machine) scratch(id string) string {
	m.Helper()
	check(m.T, hcsshim.CreateSandboxLayer(m.DriverInfo, id, "", []string{m.base}))
	return filepath.Join(m.HomeDir, id)
}

// volume makes a scratch layer and mounts it until the test's end.
func (m *machine) volume(id string) string {
	m.Helper()
	m.scratch(id)
	m.Cleanup(func() { check(m.T, down(m.DriverInfo, id)) })
	check(m.T, up(m.DriverInfo, id, []string{m.base}))
	path, err := hcsshim.GetLayerMountPath(m.DriverInfo, id)
	check(m.T, err)
	return path
}

// config is that of a container with a root of its own.
func (m *machine) config(id string) *hcsshim.ContainerConfig {
	m.Helper()
	return &hcsshim.ContainerConfig{SystemType: "Container", Name: id, Owner: "test", VolumePath: m.volume(id), Layers: m.layers()}
}

// created makes a container.
func (m *machine) created(id string) hcsshim.Container {
	m.Helper()
	c, err := hcsshim.CreateContainer(id, m.config(id))
	check(m.T, err)
	m.Cleanup(func() { check(m.T, c.Close()) })
	return c
}

// running makes a container that runs.
func (m *machine) running(id string) hcsshim.Container {
	m.Helper()
	c := m.created(id)
	check(m.T, c.Start())
	return c
}

// shell starts a script, with all streams.
func (m *machine) shell(c hcsshim.Container, script string) hcsshim.Process {
	m.Helper()
	p, err := c.CreateProcess(&hcsshim.ProcessConfig{
		CommandArgs: []string{"sh", "-c", script}, CreateStdInPipe: true, CreateStdOutPipe: true, CreateStdErrPipe: true,
	})
	check(m.T, err)
	return p
}

// output runs a script that must succeed and returns what it prints.
func (m *machine) output(c hcsshim.Container, script string) string {
	m.Helper()
	p := m.shell(c, script)
	defer p.Close()
	in, out, errs, err := p.Stdio()
	check(m.T, err)
	check(m.T, in.Close())
	text, err := io.ReadAll(out)
	check(m.T, err)
	complaint, err := io.ReadAll(errs)
	check(m.T, errors.Join(err, out.Close(), errs.Close(), p.Wait()))
	if code, err := p.ExitCode(); code != 0 || err != nil {
		m.Fatalf("%q: exit code %d, %v: %s", script, code, err, complaint)
	}
	return string(text)
}

// expect fails the test unless the error is what a client sees at once: a ContainerError or ProcessError with the very value.
func expect(t *testing.T, what string, err, want error) {
	t.Helper()
	var inner error
	switch e := err.(type) { //nolint:errorlint // as clients do it
	case *hcsshim.ContainerError:
		inner = e.Err
	case *hcsshim.ProcessError:
		inner = e.Err
	}
	if inner != want || inner == nil { //nolint:errorlint // as clients do it
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// help runs this program as one of the helpers, and returns what it prints.
func help(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	var complaint bytes.Buffer
	cmd.Env, cmd.Stderr = append(os.Environ(), helper+"="+name), &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, complaint.String())
	}
	return strings.TrimSpace(string(out))
}

package hcsshim_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostcompute/hcs/compat/hcsshim"
	"github.com/hostcompute/hcs/internal/testenv"
)

// veths is what makes networks in the tests: nothing else does yet.
var veths = new(testenv.Veths)

func init() { hcsshim.SetEndpoints(veths) }

// newEndpoint makes the id of an endpoint, which is nobody's at the test's end.
func newEndpoint(t *testing.T) string {
	t.Helper()
	testenv.NeedKernel(t, testenv.NetNamespaces)
	testenv.NeedCommand(t, "ip", "nsenter")
	veths.Calls()
	id := testenv.NewEndpoint(t)
	t.Cleanup(func() {
		list, err := filepath.Glob(filepath.Join(os.Getenv("HCS_ROOT"), "endpoints", "*"))
		if len(list) > 0 || err != nil {
			t.Errorf("taken to be attached: %q, %v", list, err)
		}
	})
	return id
}

// greet has a process of the container connect to this one by way of the endpoint.
func (m *machine) greet(c hcsshim.Container, endpoint string) {
	m.Helper()
	host, port := veths.Greet(m.T, endpoint)
	if got := m.output(c, "nc -w 20 "+host+" "+port+" </dev/null"); got != endpoint {
		m.Errorf("it hears %q", got)
	}
}

func attach(request hcsshim.RequestType, endpoint string) *hcsshim.ResourceModificationRequestResponse {
	return &hcsshim.ResourceModificationRequestResponse{Resource: hcsshim.Network, Data: endpoint, Request: request}
}

// TestEndpoints has a container with an endpoint from its start, and with another while it runs, as HotAttachEndpoint gives it.
func TestEndpoints(t *testing.T) {
	m := newMachine(t)
	first, second := newEndpoint(t), newEndpoint(t)
	config := m.config("web")
	config.EndpointList = []string{first}
	c, err := hcsshim.CreateContainer("web", config)
	check(t, err)
	check(t, c.Start())
	m.greet(c, first)
	check(t, c.Modify(attach(hcsshim.Add, second)))
	m.greet(c, second)
	check(t, c.Modify(attach(hcsshim.Remove, first)))
	expect(t, "remove it again", c.Modify(attach(hcsshim.Remove, first)), hcsshim.ErrElementNotFound)
	if err := c.Modify(attach(hcsshim.Add, second)); err == nil || !strings.Contains(err.Error(), second) {
		t.Errorf("add it again: %v", err)
	}
	if stats, err := c.Statistics(); err != nil || len(stats.Network) != 1 || stats.Network[0].BytesReceived == 0 {
		t.Errorf("the networks are %+v, %v", stats.Network, err)
	}
	check(t, errors.Join(ended(c), c.Close()))
	want := fmt.Sprintf("attach %s, attach %s, detach %s, detach %s", first, second, first, second)
	if got := veths.Calls(); got != want {
		t.Errorf("the calls are %s, want %s", got, want)
	}
}

// TestEndpointsOfTheKilled has the program die that has a container with an endpoint. The container goes on; it ends with nobody
// there, and who looks for it next gives the endpoint back.
func TestEndpointsOfTheKilled(t *testing.T) {
	m := newMachine(t)
	e := newEndpoint(t)
	m.scratch("web")
	owner := exec.CommandContext(t.Context(), os.Args[0], m.HomeDir, m.base, "web", e)
	owner.Env, owner.Stderr = append(os.Environ(), helper+"=network"), os.Stderr
	out, err := owner.StdoutPipe()
	check(t, errors.Join(err, owner.Start()))
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "runs\n" {
		t.Fatalf("the other program says %q, %v", line, err)
	}
	check(t, owner.Process.Kill())
	_ = owner.Wait()
	c, err := hcsshim.OpenContainer("web")
	check(t, err)
	m.greet(c, e)
	check(t, c.Close())
	if got := veths.Calls(); got != "" {
		t.Errorf("the calls are %s", got)
	}
	if out, err := exec.Command("kill", "-KILL", fmt.Sprint(shimOf(t, "web"))).CombinedOutput(); err != nil {
		t.Fatalf("kill: %v: %s", err, out)
	}
	stopped(t, "web")
	if _, err := hcsshim.OpenContainer("web"); !hcsshim.IsNotExist(err) {
		t.Errorf("open what has ended: %v", err)
	}
	if got := veths.Calls(); got != "detach "+e {
		t.Errorf("the calls are %s", got)
	}
}

// TestNoNetworks asks for an endpoint where nothing makes networks.
func TestNoNetworks(t *testing.T) {
	m := newMachine(t)
	volume := m.volume("web")
	if got := help(t, "unconnected", volume); got != "true true, true true" {
		t.Error(got)
	}
}

// unconnected is a program without anything that makes networks. It prints whether errors are of the kind and name the endpoint.
func unconnected(args []string) error {
	hcsshim.SetEndpoints(nil)
	config := &hcsshim.ContainerConfig{VolumePath: args[0], EndpointList: []string{"0815"}}
	says := func(err error) string {
		return fmt.Sprint(hcsshim.IsNotSupported(err), " ", err != nil && strings.Contains(err.Error(), "endpoint 0815"))
	}
	_, cerr := hcsshim.CreateContainer("web", config)
	config.EndpointList = nil
	c, err := hcsshim.CreateContainer("web", config)
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		return err
	}
	fmt.Println(says(cerr) + ", " + says(c.Modify(attach(hcsshim.Add, "0815"))))
	return errors.Join(ended(c), c.Close())
}

func init() { helpers["unconnected"] = unconnected }

// network is a program with a container that has an endpoint, and a scratch layer to be mounted.
func network(args []string) error {
	home, base, id, endpoint := args[0], args[1], args[2], args[3]
	c, err := hcsshim.CreateContainer(id, &hcsshim.ContainerConfig{
		LayerFolderPath: filepath.Join(home, id), Layers: []hcsshim.Layer{{Path: base}}, EndpointList: []string{endpoint},
	})
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		return err
	}
	fmt.Println("runs")
	testenv.AwaitKill(c)
	return c.WaitTimeout(time.Minute)
}

func init() { helpers["network"] = network }

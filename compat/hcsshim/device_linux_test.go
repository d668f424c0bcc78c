package hcsshim_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/compat/hcsshim"
)

// TestAssignedDevices gives a container a device by its path, and one by its class; others it cannot use, whatever it makes.
func TestAssignedDevices(t *testing.T) {
	m := newMachine(t)
	config := m.config("web")
	config.AssignedDevices = []hcsshim.AssignedDevice{{InterfaceClassGUID: "/dev/loop-control"}}
	const port = "/dev/ttyS0"
	_, err := os.Stat(port)
	hasPort := err == nil
	if hasPort {
		config.AssignedDevices = append(config.AssignedDevices, hcsshim.AssignedDevice{InterfaceClassGUID: "86E0D1E0-8089-11D0-9CE4-08003E301F73"})
	}
	c, err := hcsshim.CreateContainer("web", config)
	check(t, err)
	check(t, c.Start())
	if got := m.output(c, "exec 3<>/dev/loop-control && echo opened"); got != "opened\n" {
		t.Errorf("the assigned device: %q", got)
	}
	if got := m.output(c, "test -c "+port+" && echo there || echo none"); hasPort != (got == "there\n") {
		t.Errorf("the serial port: %q", got)
	}
	// It may make a node of /dev/fuse, by its numbers, and not open it.
	got := m.output(c, "test -e /dev/fuse && echo there; mknod /own c 10 229; (exec 3<>/own) 2>&1 && echo opened; rm /own")
	if !strings.Contains(got, "not permitted") || strings.Contains(got, "opened") || strings.Contains(got, "there") {
		t.Errorf("a device that is not assigned: %q", got)
	}
	check(t, errors.Join(ended(c), c.Close()))

	for what, want := range map[string]string{"/dev/not-there": "0x3)", "/etc": "0x57)", "no-class": "no-class"} {
		config.AssignedDevices = []hcsshim.AssignedDevice{{InterfaceClassGUID: what}}
		if _, err := hcsshim.CreateContainer("web", config); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

package hcsshim

import (
	"encoding/json"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/hcserror"
	compute "github.com/hostcompute/hcs/container"
)

// TestUnsupported asks for one thing at a time that there is not: the error names it.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]ContainerConfig{
		"HvPartition":                {HvPartition: true},
		"ContainerType Windows":      {ContainerType: "Windows"},
		"NetworkSharedContainerName": {NetworkSharedContainerName: "x"},
		"disk":                       {MappedVirtualDisks: []MappedVirtualDisk{{CreateInUtilityVM: true}}},
		"AttachOnly":                 {MappedVirtualDisks: []MappedVirtualDisk{{AttachOnly: true}}},
		"AssignedDevices":            {AssignedDevices: []AssignedDevice{{}}},
		"class/x":                    {AssignedDevices: []AssignedDevice{{InterfaceClassGUID: "class/x"}}},
		"SystemType":                 {SystemType: "VirtualMachine"},
		"CreateInUtilityVM":          {MappedDirectories: []MappedDir{{HostPath: "/", CreateInUtilityVM: true}}},
	} {
		_, err := specOf("web", &c)
		err = systemFailure(err, "web", "CreateComputeSystem", "")
		if !IsNotSupported(err) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]ContainerConfig{
		"ContainerType":     {ContainerType: "Plan 9"},
		"MemoryMaximumInMB": {MemoryMaximumInMB: -1},
		"ProcessorMaximum":  {ProcessorMaximum: fullProcessor + 1},
		"ProcessorWeight":   {ProcessorWeight: 1 << 40},
		"StorageIOPS":       {StorageIOPSMaximum: 1 << 63},
		"StorageBandwidth":  {StorageBandwidthMaximum: 1 << 63},
		"BandwidthMaximum":  {MappedDirectories: []MappedDir{{HostPath: "/", BandwidthMaximum: 1 << 63}}},
		"IOPSMaximum":       {MappedDirectories: []MappedDir{{HostPath: "/", IOPSMaximum: 1 << 63}}},
		"neither a socket":  {MappedPipes: []MappedPipe{{HostPath: t.TempDir(), ContainerPipeName: "x"}}},
	} {
		if _, err := specOf("web", &c); hcserror.Code(err) != hcserror.InvalidParameter || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSpec has what becomes of a configuration.
func TestSpec(t *testing.T) {
	t.Parallel()
	got, err := specOf("web", &ContainerConfig{
		SystemType: "Container", Name: "n", Owner: "docker", HostName: "h", VolumePath: "/root", ContainerType: "Linux",
		MemoryMaximumInMB: 64, ProcessorMaximum: fullProcessor, ProcessorWeight: 50, StorageIOPSMaximum: 7, StorageBandwidthMaximum: 8,
		Servicing: true, Credentials: "{}", HvRuntime: &HvRuntime{}, DNSSearchList: "a.example,b.example",
		TerminateOnLastHandleClosed: true,
		MappedDirectories:           []MappedDir{{HostPath: "/a", ContainerPath: "/b", ReadOnly: true, LinuxMetadata: true, IOPSMaximum: 5, BandwidthMaximum: 6}},
		MappedVirtualDisks:          []MappedVirtualDisk{{HostPath: "/d", ContainerPath: "/e", ReadOnly: true, Cache: "Disabled"}},
		EndpointList:                []string{"7", "8"},
		AssignedDevices:             []AssignedDevice{{InterfaceClassGUID: "/dev/fuse"}, {InterfaceClassGUID: "/dev/../dev/fuse"}},
	})
	want := compute.Spec{
		Name: "web", Hostname: "h", RootDir: "/root", WriteInPlace: true, HandleBound: true,
		Resources:   compute.Resources{Memory: 64 << 20, CPUs: float64(runtime.NumCPU()), CPUWeight: 50, IOPS: 7, Bandwidth: 8},
		Credentials: "{}", DNS: compute.DNS{Search: []string{"a.example", "b.example"}},
		Disks:     []compute.Disk{{Source: "/d", Target: "/e", ReadOnly: true}},
		Endpoints: []string{"7", "8"},
		Devices:   []compute.Device{{Source: "/dev/fuse"}},
		Mounts:    []compute.Mount{{Source: "/a", Target: "/b", ReadOnly: true, IOPS: 5, Bandwidth: 6}},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestCPUs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		config ContainerConfig
		want   float64
	}{
		{ContainerConfig{}, 0},
		{ContainerConfig{ProcessorCount: 2}, 2},
		{ContainerConfig{ProcessorCount: 9}, 0}, // there are fewer
		{ContainerConfig{ProcessorMaximum: 2500}, 1},
		{ContainerConfig{ProcessorMaximum: 1}, 0.0004},
		{ContainerConfig{ProcessorCount: 1, ProcessorMaximum: 5000}, 1},
		{ContainerConfig{ProcessorCount: 3, ProcessorMaximum: 5000}, 2},
	} {
		if got := c.config.cpus(4); got != c.want {
			t.Errorf("%d processors, %d: got %v, want %v", c.config.ProcessorCount, c.config.ProcessorMaximum, got, c.want)
		}
	}
}

func TestProcessSpec(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		config ProcessConfig
		want   compute.ProcessSpec
	}{
		{ProcessConfig{CommandLine: `sh -c "exit 3"`}, compute.ProcessSpec{Args: []string{"sh", "-c", "exit 3"}}},
		{
			ProcessConfig{CommandLine: "not this", CommandArgs: []string{"echo", `a "b`, ""}},
			compute.ProcessSpec{Args: []string{"echo", `a "b`, ""}},
		},
		{ProcessConfig{ApplicationName: "/bin/x"}, compute.ProcessSpec{Args: []string{"/bin/x"}, Path: "/bin/x"}},
		{
			ProcessConfig{ApplicationName: "/bin/x", CommandLine: "x y"},
			compute.ProcessSpec{Args: []string{"x", "y"}, Path: "/bin/x"},
		},
		{
			ProcessConfig{
				CommandLine: "x", User: "u:g", WorkingDirectory: "/d", Environment: map[string]string{"B": "2", "A": "1", "PATH": "/x"},
				CreateStdInPipe: true, CreateStdErrPipe: true,
			},
			compute.ProcessSpec{
				Args: []string{"x"}, Env: []string{"A=1", "B=2", "PATH=/x"}, Dir: "/d", User: "u:g",
				Pipes: compute.Pipes{Stdin: true, Stderr: true},
			},
		},
		{
			ProcessConfig{CommandLine: "x", EmulateConsole: true, ConsoleSize: [2]uint{24, 1 << 20}, CreateStdOutPipe: true, CreateStdErrPipe: true},
			compute.ProcessSpec{
				Args: []string{"x"}, Env: []string{"TERM=xterm"}, Terminal: true, Rows: 24, Cols: 65535,
				Pipes: compute.Pipes{Stdout: true},
			},
		},
		{
			ProcessConfig{CommandLine: "x", ConsoleSize: [2]uint{24, 80}},
			compute.ProcessSpec{Args: []string{"x"}},
		},
	} {
		got, err := c.config.spec()
		if err != nil {
			t.Errorf("%+v: %v", c.config, err)
		} else if diff := cmp.Diff(&c.want, got); diff != "" {
			t.Errorf("%+v: %s", c.config, diff)
		}
	}
	for name, c := range map[string]ProcessConfig{
		"neither CommandLine": {}, "CreateInUtilityVm": {CommandLine: "x", CreateInUtilityVm: true},
		"OCISpecification": {CommandLine: "x", OCISpecification: new(json.RawMessage)},
	} {
		if _, err := c.spec(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAdditionalJSON merges documents: what is added wins.
func TestAdditionalJSON(t *testing.T) {
	config := &ContainerConfig{
		Name: "a", Owner: "docker", MemoryMaximumInMB: 64, HvRuntime: &HvRuntime{ImagePath: "/i", BootSource: "b"},
		Layers: []Layer{{ID: "1", Path: "/1"}},
	}
	for _, c := range []struct {
		text string
		want func(*ContainerConfig)
	}{
		{"", func(*ContainerConfig) {}},
		{"{}", func(*ContainerConfig) {}},
		{`{"MemoryMaximumInMB":9007199254740993}`, func(c *ContainerConfig) { c.MemoryMaximumInMB = 9007199254740993 }},
		{`{"HvRuntime":{"BootSource":"c"}}`, func(c *ContainerConfig) { c.HvRuntime = &HvRuntime{ImagePath: "/i", BootSource: "c"} }},
		{`{"HvRuntime":null,"Layers":[]}`, func(c *ContainerConfig) { c.HvRuntime, c.Layers = nil, []Layer{} }},
		{`{"Owner":"me","Servicing":true}`, func(c *ContainerConfig) { c.Owner, c.Servicing = "me", true }},
	} {
		t.Setenv(additionalJSON, c.text)
		want := *config
		c.want(&want)
		got, document, err := complete(config)
		if err != nil || !reflect.DeepEqual(got, &want) || !json.Valid(document) {
			t.Errorf("%s: %+v, %v", c.text, got, err)
		}
	}
	for _, bad := range []string{"{", "[]", "7", "{} {}", `{"NoSuchField":1}`, `{"Layers":7}`} {
		t.Setenv(additionalJSON, bad)
		if _, _, err := complete(config); !errors.Is(err, ErrVmcomputeInvalidJSON) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestJSON has the documents as programs that log them show them.
func TestJSON(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value any
		want  string
	}{
		{ContainerConfig{}, `{"SystemType":"","Name":"","Layers":null,"HvPartition":false}`},
		{ProcessConfig{}, `{"ConsoleSize":[0,0]}`},
		{ComputeSystemQuery{IDs: []string{"a"}}, `{"Ids":["a"]}`},
		{MappedVirtualDisk{}, `{"ContainerPath":"","AttachOnly":false}`},
		{
			ResourceModificationRequestResponse{Resource: Network, Data: "e", Request: Add},
			`{"ResourceType":"Network","Settings":"e","RequestType":"Add"}`,
		},
		{MemoryStats{1, 2, 3}, `{"MemoryUsageCommitBytes":1,"MemoryUsageCommitPeakBytes":2,"MemoryUsagePrivateWorkingSetBytes":3}`},
	} {
		got, err := json.Marshal(c.value)
		if err != nil || string(got) != c.want {
			t.Errorf("got  %s, %v\nwant %s", got, err, c.want)
		}
	}
}

func TestLimits(t *testing.T) {
	for text, want := range map[string]string{"": "4m0s", "7": "7s", "0": "4m0s", "-1": "4m0s", "x": "4m0s"} {
		t.Setenv(string(startLimit), text)
		if got := startLimit.timeout().String(); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

// TestChange has what becomes of a request for another container.
func TestChange(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		request ResourceModificationRequestResponse
		want    compute.Change
	}{
		{
			ResourceModificationRequestResponse{"MappedDirectory", MappedDir{HostPath: "/a", ContainerPath: "/b"}, Add},
			compute.Change{AddMounts: []compute.Mount{{Source: "/a", Target: "/b"}}},
		},
		{
			ResourceModificationRequestResponse{"MappedDirectory", map[string]any{"ContainerPath": "/b"}, Remove},
			compute.Change{RemoveMounts: []string{"/b"}},
		},
		{
			ResourceModificationRequestResponse{"MappedPipe", MappedPipe{"/gone", "p"}, Remove},
			compute.Change{RemoveMounts: []string{"/run/p"}},
		},
		{
			ResourceModificationRequestResponse{"MappedVirtualDisk", json.RawMessage(`{"HostPath":"/d","ContainerPath":"/e","ReadOnly":true}`), Add},
			compute.Change{AddDisks: []compute.Disk{{Source: "/d", Target: "/e", ReadOnly: true}}},
		},
		{
			ResourceModificationRequestResponse{"MappedVirtualDisk", MappedVirtualDisk{ContainerPath: "/e"}, Remove},
			compute.Change{RemoveDisks: []string{"/e"}},
		},
		{ResourceModificationRequestResponse{Network, "0815", Add}, compute.Change{AddEndpoints: []string{"0815"}}},
		{ResourceModificationRequestResponse{Network, "0815", Remove}, compute.Change{RemoveEndpoints: []string{"0815"}}},
	} {
		got, err := c.request.change()
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%+v: %v\n%s", c.request, err, diff)
		}
	}
	for want, r := range map[error]ResourceModificationRequestResponse{
		ErrNotSupported:           {"Licensing", "x", Add},
		ErrVmcomputeInvalidJSON:   {"MappedDirectory", 7, Add},
		hcserror.InvalidParameter: {"MappedDirectory", MappedDir{}, "Update"},
	} {
		if _, err := r.change(); !errors.Is(err, want) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

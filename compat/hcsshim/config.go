package hcsshim

import (
	"encoding/json"
	"time"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/schema1"
)

// The types below are the documents that the Host Compute System takes and gives, with their JSON
// (https://learn.microsoft.com/virtualization/api/hcs/schemareference; names and forms are those of hcsshim 0.8).
// What a field does here is told in docs/hcsshim.md.

// Layer is a read-only layer of a container.
type Layer struct {
	ID   string
	Path string
}

// MappedDir is a directory of the host's that a container sees.
type MappedDir struct {
	HostPath          string
	ContainerPath     string
	ReadOnly          bool
	BandwidthMaximum  uint64 // bytes a second
	IOPSMaximum       uint64
	CreateInUtilityVM bool
	// LinuxMetadata asks a utility VM for a share that keeps Linux's metadata. Here every directory does.
	LinuxMetadata bool `json:",omitempty"`
}

// MappedPipe is a socket or a named pipe of the host's that a container sees: HostPath is its path, ContainerPipeName the
// one in the container, below /run unless it is absolute.
type MappedPipe struct {
	HostPath          string
	ContainerPipeName string
}

// HvRuntime says which machine a Hyper-V container runs in.
type HvRuntime struct {
	ImagePath           string `json:",omitempty"`
	SkipTemplate        bool   `json:",omitempty"`
	LinuxInitrdFile     string `json:",omitempty"`
	LinuxKernelFile     string `json:",omitempty"`
	LinuxBootParameters string `json:",omitempty"`
	BootSource          string `json:",omitempty"`
	WritableBootSource  bool   `json:",omitempty"`
}

// MappedVirtualDisk is a disk image of the host's that a container sees.
type MappedVirtualDisk struct {
	HostPath          string `json:",omitempty"`
	ContainerPath     string
	CreateInUtilityVM bool   `json:",omitempty"`
	ReadOnly          bool   `json:",omitempty"`
	Cache             string `json:",omitempty"`
	AttachOnly        bool   // always written: hcsshim's tag is malformed, and so none
}

// AssignedDevice is what a container may use of the host's devices: one by the path of its node, "/dev/fuse" say, which is its
// path in the container too; or, by the GUID that Windows has for their class, all that there are of GPIO chips, I2C and SPI
// buses, serial ports or GPUs. The host goes on using them.
type AssignedDevice struct {
	InterfaceClassGUID string `json:"InterfaceClassGuid,omitempty"`
}

// ContainerConfig says what a container is to be. What is asked for and cannot be done is an error for which
// IsNotSupported is true and that names the field.
type ContainerConfig struct {
	SystemType string // "Container"
	Name       string // for GetContainers
	// VolumePath is the container's root, written in place: what GetLayerMountPath returned for a scratch layer that the
	// caller has prepared, or any directory.
	VolumePath string `json:",omitempty"`
	// LayerFolderPath is the scratch layer on top of Layers. Where VolumePath is empty, it is activated and prepared with
	// the container, and taken down with it.
	LayerFolderPath             string              `json:",omitempty"`
	Layers                      []Layer             // nearest first
	Credentials                 string              `json:",omitempty"`
	ProcessorCount              uint32              `json:",omitempty"`
	ProcessorWeight             uint64              `json:",omitempty"`
	ProcessorMaximum            int64               `json:",omitempty"` // of the machine's processor time, 1 to 10000; once 1 to 100
	StorageIOPSMaximum          uint64              `json:",omitempty"`
	StorageBandwidthMaximum     uint64              `json:",omitempty"` // bytes a second
	StorageSandboxSize          uint64              `json:",omitempty"` // bytes that the scratch layer has room for at least
	MemoryMaximumInMB           int64               `json:",omitempty"`
	HvPartition                 bool                // a machine of its own
	HvRuntime                   *HvRuntime          `json:",omitempty"`
	Owner                       string              `json:",omitempty"` // for GetContainers
	IgnoreFlushesDuringBoot     bool                `json:",omitempty"`
	HostName                    string              `json:",omitempty"`
	MappedDirectories           []MappedDir         `json:",omitempty"`
	MappedPipes                 []MappedPipe        `json:",omitempty"`
	NetworkSharedContainerName  string              `json:",omitempty"`
	EndpointList                []string            `json:",omitempty"`
	Servicing                   bool                `json:",omitempty"`
	AllowUnqualifiedDNSQuery    bool                `json:",omitempty"`
	DNSSearchList               string              `json:",omitempty"`
	ContainerType               string              `json:",omitempty"` // "Linux", "Windows", or empty for what runs here
	TerminateOnLastHandleClosed bool                `json:",omitempty"`
	MappedVirtualDisks          []MappedVirtualDisk `json:",omitempty"`
	AssignedDevices             []AssignedDevice    `json:",omitempty"`
}

// ProcessConfig says which process to create in a container.
type ProcessConfig struct {
	// ApplicationName is the program, where it is not the first word of the command line.
	ApplicationName string `json:",omitempty"`
	// CommandLine is split as CommandLineToArgvW does it. CommandArgs, if there are any, are passed as they are instead.
	CommandLine      string            `json:",omitempty"`
	CommandArgs      []string          `json:",omitempty"`
	User             string            `json:",omitempty"` // name or number, with ":group" if need be; empty is root
	WorkingDirectory string            `json:",omitempty"`
	Environment      map[string]string `json:",omitempty"`
	EmulateConsole   bool              `json:",omitempty"` // a terminal
	CreateStdInPipe  bool              `json:",omitempty"`
	CreateStdOutPipe bool              `json:",omitempty"`
	CreateStdErrPipe bool              `json:",omitempty"`
	// ConsoleSize is the terminal's height and width.
	ConsoleSize       [2]uint          `json:",omitempty"`
	CreateInUtilityVm bool             `json:",omitempty"`
	OCISpecification  *json.RawMessage `json:",omitempty"`
}

// ComputeSystemQuery selects containers: those that each list which is not empty has an entry for. The zero value selects
// all.
type ComputeSystemQuery struct {
	IDs    []string `json:"Ids,omitempty"`
	Types  []string `json:",omitempty"`
	Names  []string `json:",omitempty"`
	Owners []string `json:",omitempty"`
}

// ContainerProperties is what GetContainers tells of a container. Statistics, processes and disks are told by the methods
// of a Container instead.
type ContainerProperties struct {
	ID                           string `json:"Id"`
	Name                         string
	SystemType                   string
	Owner                        string
	SiloGUID                     string                              `json:"SiloGuid,omitempty"`
	RuntimeID                    string                              `json:"RuntimeId,omitempty"`
	IsRuntimeTemplate            bool                                `json:",omitempty"`
	RuntimeImagePath             string                              `json:",omitempty"`
	Stopped                      bool                                `json:",omitempty"`
	ExitType                     string                              `json:",omitempty"`
	AreUpdatesPending            bool                                `json:",omitempty"`
	ObRoot                       string                              `json:",omitempty"`
	Statistics                   Statistics                          `json:",omitempty"`
	ProcessList                  []ProcessListItem                   `json:",omitempty"`
	State                        string                              // "Created", "Running", "Paused", "Stopped"
	MappedVirtualDiskControllers map[int]MappedVirtualDiskController `json:",omitempty"`
	GuestConnectionInfo          schema1.GuestConnectionInfo         `json:",omitempty"`
}

// Statistics are a running container's counters.
type Statistics struct {
	Timestamp          time.Time      `json:",omitempty"`
	ContainerStartTime time.Time      `json:",omitempty"`
	Uptime100ns        uint64         `json:",omitempty"`
	Memory             MemoryStats    `json:",omitempty"`
	Processor          ProcessorStats `json:",omitempty"`
	Storage            StorageStats   `json:",omitempty"`
	Network            []NetworkStats `json:",omitempty"`
}

// MemoryStats are a container's memory in use. The private working set is what the kernel cannot drop.
type MemoryStats struct {
	UsageCommitBytes            uint64 `json:"MemoryUsageCommitBytes,omitempty"`
	UsageCommitPeakBytes        uint64 `json:"MemoryUsageCommitPeakBytes,omitempty"`
	UsagePrivateWorkingSetBytes uint64 `json:"MemoryUsagePrivateWorkingSetBytes,omitempty"`
}

// ProcessorStats are the processor time that a container took, in units of 100 ns.
type ProcessorStats struct {
	TotalRuntime100ns  uint64 `json:",omitempty"`
	RuntimeUser100ns   uint64 `json:",omitempty"`
	RuntimeKernel100ns uint64 `json:",omitempty"`
}

// StorageStats are what a container has read from disks and written to them.
type StorageStats struct {
	ReadCountNormalized  uint64 `json:",omitempty"`
	ReadSizeBytes        uint64 `json:",omitempty"`
	WriteCountNormalized uint64 `json:",omitempty"`
	WriteSizeBytes       uint64 `json:",omitempty"`
}

// NetworkStats are the counters of one of a container's network endpoints.
type NetworkStats struct {
	BytesReceived          uint64 `json:",omitempty"`
	BytesSent              uint64 `json:",omitempty"`
	PacketsReceived        uint64 `json:",omitempty"`
	PacketsSent            uint64 `json:",omitempty"`
	DroppedPacketsIncoming uint64 `json:",omitempty"`
	DroppedPacketsOutgoing uint64 `json:",omitempty"`
	EndpointId             string `json:",omitempty"`
	InstanceId             string `json:",omitempty"`
}

// ProcessListItem is a process of a container, with its times in units of 100 ns.
type ProcessListItem struct {
	CreateTimestamp              time.Time `json:",omitempty"`
	ImageName                    string    `json:",omitempty"`
	KernelTime100ns              uint64    `json:",omitempty"`
	MemoryCommitBytes            uint64    `json:",omitempty"`
	MemoryWorkingSetPrivateBytes uint64    `json:",omitempty"`
	MemoryWorkingSetSharedBytes  uint64    `json:",omitempty"`
	ProcessId                    uint32    `json:",omitempty"`
	UserTime100ns                uint64    `json:",omitempty"`
}

// MappedVirtualDiskController is a controller of a container, with its disks by their numbers.
type MappedVirtualDiskController struct {
	MappedVirtualDisks map[int]MappedVirtualDisk `json:",omitempty"`
}

// RequestType is what a modification does.
type RequestType string

// The requests.
const (
	Add    RequestType = "Add"
	Remove RequestType = "Remove"
)

// ResourceType is what a modification is about.
type ResourceType string

// Network is a network endpoint, whose id is the Data of the request.
const Network ResourceType = "Network"

// ResourceModificationRequestResponse asks for a change of a running container.
type ResourceModificationRequestResponse struct {
	Resource ResourceType `json:"ResourceType"`
	Data     any          `json:"Settings"`
	Request  RequestType  `json:"RequestType,omitempty"`
}

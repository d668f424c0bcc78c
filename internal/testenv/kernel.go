package testenv

// Feature is something a kernel may lack, or deny to this process.
type Feature string

// The features that tests ask for.
const (
	// MountAPI is fsopen, fsconfig, fsmount and move_mount.
	MountAPI Feature = "new mount API"
	// Overlay is overlayfs with one lowerdir+ option per layer (Linux 6.5).
	Overlay Feature = "overlayfs with lowerdir+"
	// EROFS is the EROFS file system.
	EROFS Feature = "EROFS"
	// Openat2 is openat2 with RESOLVE_IN_ROOT.
	Openat2 Feature = "openat2"
	// PidFD is pidfd_open and pidfd_send_signal.
	PidFD Feature = "pidfd"
	// MountNamespaces is the right to make mount namespaces.
	MountNamespaces Feature = "mount namespaces"
	// NetNamespaces is the right to make network namespaces.
	NetNamespaces Feature = "network namespaces"
	// UserNamespaces is the right to make user namespaces.
	UserNamespaces Feature = "user namespaces"
	// MappedMounts is mounts of the test's temporary directory with other owners (MOUNT_ATTR_IDMAP).
	MappedMounts Feature = "idmapped mounts"
	// Seccomp is seccomp filters.
	Seccomp Feature = "seccomp filters"
	// Cgroups is a mounted and writable cgroup hierarchy with a memory controller, v1 or v2.
	Cgroups Feature = "memory cgroups"
	// LoopDevices is the right to set up loop devices.
	LoopDevices Feature = "loop devices"
)

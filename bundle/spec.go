package bundle

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/layer"
)

// SpecOptions say what a runtime configuration is made with.
type SpecOptions struct {
	// Rootfs is the image's tree, in which users are looked up. Where it is
	// empty only users in digits can be known; any other becomes root.
	Rootfs   string
	Mappings Mappings
	// Warn, if not nil, is told of a user that became root for that.
	Warn func(error)
}

// RuntimeSpec returns the configuration for an OCI runtime that an image
// describes, by the rules of the image specification's conversion
// (https://github.com/opencontainers/image-spec/blob/main/conversion.md). The
// error is of class ErrInvalidArgument if the image is for another system or
// says something that cannot be, and ErrNotFound if the tree does not have the
// user.
//
// That of an image for Windows says what to run in which layer; there are no
// users to look up, and no mounts.
func RuntimeSpec(config v1.Image, o SpecOptions) (*specs.Spec, error) {
	if layer.EncodingOf(config.OS) == layer.NT {
		return windowsSpec(config, o.Rootfs), nil
	}
	if config.OS != "linux" {
		return nil, invalid("make a runtime configuration: the image is for %q, not linux", config.OS)
	}
	// What is set first stays in its place: so these are at the front, whatever their values are.
	config.Config.Env = append([]string{"PATH=" + image.DefaultPath, "TERM=xterm"}, config.Config.Env...)
	command, err := image.NewCommand(config.Config, image.Overrides{Terminal: image.WithTerminal})
	if err != nil {
		return nil, fmt.Errorf("make a runtime configuration: %w", err)
	}
	spec := defaultSpec()
	spec.Root.Path = filepath.Base(o.Rootfs)
	if len(command.Args) > 0 {
		spec.Process.Args = command.Args
	}
	spec.Process.Env, spec.Process.Cwd = command.Env, command.Cwd
	if err := setUser(spec.Process, command.User, o); err != nil {
		return nil, fmt.Errorf("make a runtime configuration: find user %q: %w", command.User, err)
	}
	spec.Annotations = annotations(config)
	for _, dir := range sortedKeys(config.Config.Volumes) {
		spec.Mounts = append(spec.Mounts, specs.Mount{
			Destination: dir, Type: "tmpfs", Source: "none", Options: []string{"rw", "nosuid", "nodev", "noexec", "relatime"},
		})
	}
	mapped(spec, o.Mappings)
	return spec, nil
}

func windowsSpec(config v1.Image, rootfs string) *specs.Spec {
	c := config.Config
	p := &specs.Process{Cwd: c.WorkingDir, Env: c.Env, Args: slices.Concat(c.Entrypoint, c.Cmd), User: specs.User{Username: c.User}}
	if p.Cwd == "" {
		p.Cwd = `C:\`
	}
	//nolint:staticcheck // deprecated, but what images of docker's say
	if c.ArgsEscaped && len(p.Args) > 0 {
		p.CommandLine, p.Args = p.Args[0], nil
	}
	return &specs.Spec{
		Version: specs.Version, Process: p, Root: &specs.Root{Path: filepath.Base(rootfs)}, Annotations: annotations(config),
		Windows: &specs.Windows{LayerFolders: []string{"."}}, // of the bundle
	}
}

// WriteSpec writes a runtime configuration as umoci does.
func WriteSpec(w io.Writer, spec *specs.Spec) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "\t")
	if err := e.Encode(spec); err != nil {
		return fmt.Errorf("write runtime configuration: %w", err)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// setUser makes a process an image's user.
func setUser(p *specs.Process, user string, o SpecOptions) error {
	open := func(string) (io.ReadCloser, error) { return nil, fs.ErrNotExist }
	if o.Rootfs != "" {
		root, err := inroot.Open(o.Rootfs)
		if err != nil {
			return err
		}
		defer func() { _ = root.Close() }() // read only
		open = func(name string) (io.ReadCloser, error) { return root.Open(name) }
	}
	who, home, err := image.ResolveUser(user, open)
	if o.Rootfs == "" && errdefs.IsNotFound(err) {
		if o.Warn != nil {
			o.Warn(fmt.Errorf("user %q becomes root: without the image's tree only numbers are known", user))
		}
		who, home, err = specs.User{}, "", nil
	}
	if err != nil {
		return err
	}
	who.AdditionalGids = slices.DeleteFunc(who.AdditionalGids, func(g uint32) bool { return g == who.GID })
	p.User = who
	if home != "" && !slices.ContainsFunc(p.Env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		p.Env = append(p.Env, "HOME="+home)
	}
	return nil
}

// annotations are the labels, and what a runtime configuration has no place
// for.
func annotations(config v1.Image) map[string]string {
	const prefix = "org.opencontainers.image."
	all := map[string]string{}
	maps.Copy(all, config.Config.Labels)
	created := time.Time{}
	if config.Created != nil {
		created = *config.Created
	}
	all[prefix+"os"] = config.OS
	all[prefix+"architecture"] = config.Architecture
	all[prefix+"author"] = config.Author
	all[prefix+"created"] = created.Format(time.RFC3339Nano)
	all[prefix+"stopSignal"] = config.Config.StopSignal
	all[prefix+"exposedPorts"] = strings.Join(sortedKeys(config.Config.ExposedPorts), ",")
	if config.Variant != "" {
		all[prefix+"variant"] = config.Variant
	}
	return all
}

// mapped gives a configuration a user namespace, if ids are mapped, and takes
// out what an ordinary user may not do.
func mapped(spec *specs.Spec, m Mappings) {
	linux := spec.Linux
	if len(m.UIDs)+len(m.GIDs) > 0 {
		linux.Namespaces = append(linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	}
	linux.UIDMappings, linux.GIDMappings = m.UIDs, m.GIDs
	if !m.Rootless {
		return
	}
	linux.Resources = nil
	linux.Namespaces = slices.DeleteFunc(linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	spec.Process.User.AdditionalGids = nil
	spec.Mounts = slices.DeleteFunc(spec.Mounts, func(mount specs.Mount) bool {
		return mount.Destination == "/sys" || mount.Destination == "/sys/fs/cgroup"
	})
	for i, mount := range spec.Mounts {
		spec.Mounts[i].Options = slices.DeleteFunc(slices.Clone(mount.Options), func(o string) bool {
			return strings.HasPrefix(o, "uid=") || strings.HasPrefix(o, "gid=")
		})
	}
	// Without a network namespace of its own a process may not mount a sysfs,
	// and uses the machine's network with its resolver.
	spec.Mounts = append(spec.Mounts,
		specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}},
		specs.Mount{Destination: "/etc/resolv.conf", Type: "bind", Source: "/etc/resolv.conf", Options: []string{"rbind", "ro"}})
}

// defaultSpec is what every configuration has, whatever the image says.
func defaultSpec() *specs.Spec {
	may := []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
	return &specs.Spec{
		Version: "1.0.0", // all that is used here is in the first version, and old runtimes refuse newer ones
		Process: &specs.Process{
			Terminal:        true,
			Args:            []string{"sh"},
			Cwd:             "/",
			Capabilities:    &specs.LinuxCapabilities{Bounding: may, Effective: may, Inheritable: may, Permitted: may, Ambient: may},
			Rlimits:         []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}},
			NoNewPrivileges: true,
		},
		Root:     &specs.Root{Path: RootfsName},
		Hostname: "umoci-default",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		},
		Linux: &specs.Linux{
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
			},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
				"/sys/firmware", "/proc/scsi",
			},
			ReadonlyPaths: []string{"/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

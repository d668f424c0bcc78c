package cli

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/image"
)

// processOptions are the flags of a process in a container.
type processOptions struct {
	interactive, terminal, detach bool
	env, envFiles                 []string
	workdir, user                 string
	detachFlag
}

func (o *processOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.interactive, "interactive", "i", false, "pass standard input to the process")
	f.BoolVarP(&o.terminal, "tty", "t", false, "give the process a terminal")
	f.BoolVarP(&o.detach, "detach", "d", false, "leave the process running in the background")
	f.StringArrayVarP(&o.env, "env", "e", nil, "set the variable `NAME=VALUE`, or NAME as it is here")
	f.StringArrayVar(&o.envFiles, "env-file", nil, "read variables from `file`")
	f.StringVarP(&o.workdir, "workdir", "w", "", "`directory` to start in")
	o.detachFlag.addFlag(f)
	f.StringVarP(&o.user, "user", "u", "", "run as `user[:group]`, names or numbers")
}

func (o *processOptions) stdio() (stdio, error) {
	keys, err := parseKeys(o.keys)
	return stdio{interactive: o.interactive, detached: o.detach, detachKeys: keys}, err
}

func (o *processOptions) overrides() (image.Overrides, error) {
	env, err := variables(o.envFiles, o.env)
	if err != nil {
		return image.Overrides{}, err
	}
	over := image.Overrides{Env: env, Cwd: o.workdir, User: o.user}
	if o.terminal {
		over.Terminal = image.WithTerminal
	}
	return over, nil
}

// containerOptions are the flags of a new container.
type containerOptions struct {
	processOptions
	securityOptions
	resourceOptions
	name, hostname, network, rootfs, stopSignal string
	stopTimeout                                 int
	stopTimeoutFlag                             *pflag.Flag // 0 means something else than no flag
	entrypoint                                  *pflag.Flag // "" means something else than no flag
	mounts, volumes, tmpfs, labels, log         []string
	labelFiles                                  []string
	dns                                         container.DNS
	hosts, groups                               []string
	readOnly, remove                            bool
	shm                                         size
	pull                                        pullPolicy
	quiet                                       bool
	idFile                                      string
}

func (o *containerOptions) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.SetInterspersed(false) // what follows the image is the command's
	f.SetNormalizeFunc(otherNames)
	o.processOptions.addFlags(f)
	f.StringArrayVar(&o.groups, "group-add", nil, "give the process the `group` too, a name or number; one more each time")
	f.BoolVar(&o.remove, "rm", false, "remove the container when it stops")
	f.StringVar(&o.name, "name", "", "`name` of the container")
	f.Bool("help", false, "show this") // without the letter, which is docker's for the next
	f.StringVarP(&o.hostname, "hostname", "h", "", "`name` that the container calls itself")
	f.String("entrypoint", "", "`program` in place of the image's entrypoint")
	o.entrypoint = f.Lookup("entrypoint")
	f.StringArrayVarP(&o.volumes, "volume", "v", nil, "show a file or directory, `SOURCE:TARGET[:ro]`")
	f.StringArrayVar(&o.mounts, "mount", nil, "mount `type=bind|tmpfs,source=PATH,target=PATH,readonly,iops=N,bandwidth=N,tmpfs-size=N`")
	f.StringArrayVar(&o.tmpfs, "tmpfs", nil, "mount an empty directory in memory, `TARGET[:size=N,mode=N,ro,noexec]`")
	f.Var(&o.shm, "shm-size", "limit of /dev/shm in `bytes`")
	f.BoolVar(&o.readOnly, "read-only", false, "make the container's root read-only")
	o.resourceOptions.addFlags(f)
	o.securityOptions.addFlags(f)
	f.StringVar(&o.network, "network", "none", "`network`: none or host")
	f.StringArrayVar(&o.dns.Servers, "dns", nil, "ask the name server at `address`; one more each time")
	f.StringArrayVar(&o.dns.Search, "dns-search", nil, "look for names in the `domain`, too")
	f.StringArrayVar(&o.dns.Options, "dns-option", nil, "give the resolver an `option` of resolv.conf(5), as ndots:2; also --dns-opt")
	f.StringArrayVar(&o.hosts, "add-host", nil, "have the container know a host, `NAME:ADDRESS`; one more each time")
	f.StringVar(&o.rootfs, "rootfs", "", "stand on a `directory` instead of an image, and leave it as it is")
	f.StringArrayVarP(&o.labels, "label", "l", nil, "keep `KEY=VALUE` with the container")
	f.StringArrayVar(&o.labelFiles, "label-file", nil, "read labels from `file`")
	f.StringVar(&o.idFile, "cidfile", "", "write the container's id to a new `file`")
	f.StringArrayVar(&o.log, "log-opt", nil, "bound the log: `max-size=SIZE` of a file, 10m if not given, or max-file=N, 3")
	f.StringVar(&o.stopSignal, "stop-signal", "", "`signal` that asks the process to end")
	f.IntVar(&o.stopTimeout, "stop-timeout", 0, "`seconds` that hcs stop waits before the process is killed, 10 if not given; with -1 it never is")
	o.stopTimeoutFlag = f.Lookup("stop-timeout")
	f.Var(&o.pull, "pull", "get the image from its registry, if it is not of the form oci:DIR: `when` it is missing, always, or never")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "do not show how far that is")
	addGranted(f)
}

// otherNames are those that docker has for flags of ours.
func otherNames(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	switch name {
	case "pids-limit":
		name = "pids"
	case "net":
		name = "network"
	case "timeout":
		name = "time"
	case "dns-opt":
		name = "dns-option"
	}
	return pflag.NormalizedName(name)
}

// takes judges the number of arguments.
func (o *containerOptions) takes(c *cobra.Command, args []string) error {
	switch {
	case o.rootfs == "" && (len(args) == 0 || args[0] == ""):
		return usageError(c, "name an image, or a directory with --rootfs")
	case len(args) > 0:
		return nil
	case !o.entrypoint.Changed:
		return usageError(c, "name the program to run in "+o.rootfs)
	}
	return nil
}

// spec turns flags and arguments, of which the first is the image unless
// there is a root directory, into what the library wants.
func (o *containerOptions) spec(args []string) (hcs.Spec, error) {
	var spec hcs.Spec
	if o.rootfs == "" {
		spec.Image, args = args[0], args[1:]
	}
	var err error
	if spec.Command, err = o.overrides(); err != nil {
		return spec, err
	}
	spec.Command.Args = args
	spec.Pipes.Stdin, spec.Groups = o.interactive, o.groups
	if o.entrypoint.Changed {
		spec.Command.Entrypoint = []string{}
		if program := o.entrypoint.Value.String(); program != "" {
			spec.Command.Entrypoint = []string{program}
		}
	}
	spec.System, err = o.system()
	return spec, err
}

func (o *containerOptions) system() (container.Spec, error) {
	s := container.Spec{
		Name: o.name, Hostname: o.hostname, ReadOnly: o.readOnly, Network: container.Network(o.network), Ephemeral: o.remove,
		Resources: o.resources(), DNS: o.dns,
	}
	var err error
	if o.rootfs != "" {
		if s.RootDir, err = filepath.Abs(o.rootfs); err != nil {
			return s, fmt.Errorf("use root directory: %w", err)
		}
	}
	if s.Mounts, err = mounts(o.mounts, o.volumes, o.tmpfs); err != nil {
		return s, err
	}
	s.Mounts = o.withSharedMemory(s.Mounts)
	if s.Labels, err = o.allLabels(); err != nil {
		return s, err
	}
	if s.Hosts, err = parseHosts(o.hosts); err != nil {
		return s, err
	}
	if s.Log, err = parseLog(o.log); err != nil {
		return s, err
	}
	if err := o.apply(&s); err != nil {
		return s, err
	}
	if o.stopSignal != "" {
		sig, err := container.ParseSignal(o.stopSignal)
		if err != nil {
			return s, err
		}
		s.StopSignal = int(sig)
	}
	if o.stopTimeoutFlag.Changed {
		s.StopTimeout = &o.stopTimeout
	}
	return s, nil
}

// withSharedMemory adds the /dev/shm that --shm-size limits, unless something is mounted there, which has a size of its own.
func (o *containerOptions) withSharedMemory(mounts []container.Mount) []container.Mount {
	const target = "/dev/shm"
	if o.shm == 0 || slices.ContainsFunc(mounts, func(m container.Mount) bool { return path.Clean(m.Target) == target }) {
		return mounts
	}
	return append(mounts, container.Mount{Type: "tmpfs", Target: target, Size: int64(o.shm), NoExec: true})
}

// allLabels are those of files and flags, of which the latter count more.
func (o *containerOptions) allLabels() (map[string]string, error) {
	var list []string
	for _, name := range o.labelFiles {
		lines, err := readPairs(name)
		if err != nil {
			return nil, fmt.Errorf("read labels: %w", err)
		}
		list = append(list, lines...)
	}
	return parseLabels(append(list, o.labels...))
}

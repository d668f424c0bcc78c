package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// What docker has and hcs has not, or has elsewhere, with what to use instead: who types it from habit is told. The flags are
// those of docker's reference (https://docs.docker.com/reference/cli/docker/).

const (
	noNetworks = "networks other than none and host are to come: --network host has the machine's ports"
	noVolumes  = "there are no named volumes: use -v ./DIR:/TARGET"
	noCluster  = "hcs does not manage clusters"
	noTrust    = "name an image by what it contains: NAME@sha256:…"
	useBuild   = "use hcs image build-from-dir, or hcs commit with --change"
	useSize    = "use hcs system df -v"
	useImages  = "use hcs image stat, or hcs inspect"
	leftOut    = "leave it out: "
)

// dockerCommands are commands of docker's by their place in the tree.
var dockerCommands = map[string]string{
	"hcs build": useBuild, "hcs buildx": useBuild, "hcs builder": useBuild, "hcs image build": useBuild,
	"hcs compose": "hcs runs single containers", "hcs stack": noCluster, "hcs swarm": noCluster, "hcs service": noCluster, "hcs node": noCluster,
	"hcs secret": "mount a file: -v ./FILE:/run/secrets/NAME:ro", "hcs config": "mount a file: -v ./FILE:/TARGET:ro",
	"hcs context": "hcs has no daemon: for another machine use ssh", "hcs daemon": "hcs has no daemon",
	"hcs network": noNetworks, "hcs port": noNetworks, "hcs container port": noNetworks, "hcs volume": noVolumes,
	"hcs history": useImages, "hcs image history": useImages,
	"hcs import": useBuild, "hcs image import": useBuild, "hcs search": "hcs image tags lists what a repository has",
	"hcs plugin":     "there are no plugins",
	"hcs checkpoint": "the state of processes cannot be kept; hcs commit keeps what they have written",
	"hcs trust":      noTrust, "hcs manifest": "use hcs image inspect, or hcs image raw",
}

// dockerFlags are flags of docker's, without dashes, of these commands, whose names are those under the root.
var dockerFlags = []struct{ commands, flags, use string }{
	{"run create", "expose ip ip6 link link-local-ip mac-address net-alias network-alias p publish P publish-all", noNetworks},
	{"run create", "annotation", "use --label"},
	{"run create", "a attach", leftOut + "output is shown unless you give -d, and input passed on with -i"},
	{
		"run create update", "blkio-weight blkio-weight-device device-read-bps device-read-iops device-write-bps device-write-iops",
		"use --iops and --bandwidth",
	},
	{"run create", "cgroupns ipc pid uts", leftOut + "a container always has its own"},
	{"run create", "cpu-count cpu-percent io-maxbandwidth io-maxiops isolation", "it is for Windows hosts"},
	{"run create update", "cpu-period cpu-quota cpu-rt-period cpu-rt-runtime", "use --cpus"},
	{"run create update", "cpuset-mems", "use --cpuset-cpus, or numactl in the container"},
	{"run create update", "kernel-memory memory-reservation memory-swappiness", "use --memory, which is a limit of all memory"},
	{"run create", "device-cgroup-rule gpus", "use --device"},
	{"run create", "disable-content-trust", noTrust},
	{"run create", "domainname", "use --hostname with the whole name"},
	{
		"run create", "health-cmd health-interval health-retries health-start-interval health-start-period health-timeout",
		"hcs watches no containers: have a timer run hcs exec",
	},
	{"run create", "oom-kill-disable oom-score-adj", "only a limit, as of --memory, has processes killed"},
	{"run create", "platform", "give it to hcs image pull, before"},
	{"run create", "privileged", "use --cap-add, --device and --security-opt for what is needed"},
	{"run create", "storage-opt", "what a container writes is not limited"},
	{"run create", "volume-driver", noVolumes},
	{"run create", "volumes-from", "give the same -v again"},
	{"run create", "use-api-socket", "hcs has no daemon"},
	{"create", "detach-keys", "give it to hcs start, or attach"},
	{"exec", "privileged", "give --cap-add to hcs run"},
	{"start", "checkpoint checkpoint-dir", "the state of processes cannot be kept"},
	{"images info", "f filter", "use --format, and grep"},
	{"inspect", "s size", useSize},
	{"logs", "details", "use hcs inspect"},
	{"rm", "link l", noNetworks},
	{"commit", "no-pause", leftOut + "the container is paused meanwhile"},
	{"images", "tree", leftOut + "all images are shown"},
	{"images", "digests", "use --format '{{.Repository}} {{.Digest}}'"},
	{"pull push", "a all-tags", "hcs image tags shows them: name each"},
	{"pull push", "disable-content-trust", noTrust},
	{"push rmi save", "platform", leftOut + "an image here is for one"},
	{"rmi", "no-prune", leftOut + "layers that other images have stay"},
	{"hcs", "D debug", "use --log-level debug"},
	{"hcs", "c context config H host tls tlscacert tlscert tlskey tlsverify", "hcs has no daemon: for another machine use ssh"},
	{"prune", "a all filter volumes", leftOut + "what nobody uses goes, and mounted directories stay"},
}

// short are the names that commands have under the root, and docker has them by.
var short = map[string]string{
	"hcs image ls": "images", "hcs image rm": "rmi", "hcs container ls": "ps", "hcs system info": "info", "hcs system prune": "prune",
}

// advice is what to use instead of docker's flag.
func advice(c *cobra.Command, flag string) string {
	name := c.Name()
	if s := short[c.CommandPath()]; s != "" {
		name = s
	}
	for _, command := range []string{name, "hcs"} { // which has those before all commands
		for _, row := range dockerFlags {
			if slices.Contains(strings.Fields(row.commands), command) && slices.Contains(strings.Fields(row.flags), flag) {
				return row.use
			}
		}
	}
	return ""
}

// flagError says what is wrong with the flags of a command. Where there is no such command that is what is wrong.
func flagError(c *cobra.Command, args []string, err error) string {
	if name := missingCommand(c, args); name != "" {
		return unknownCommand(c, name)
	}
	what := err.Error()
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		what = valueError(bad)
	}
	if missing, ok := errors.AsType[*pflag.NotExistError](err); ok {
		if use := advice(c, missing.GetSpecifiedName()); use != "" {
			what += ": " + use
		}
	}
	return what
}

// missingCommand returns the word of the arguments that should be one of c's commands, if none of these was found.
func missingCommand(c *cobra.Command, args []string) string {
	if !c.HasSubCommands() {
		return ""
	}
	words := slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return strings.HasPrefix(arg, "-") })
	depth := strings.Count(c.CommandPath(), " ")
	if c.Parent() == nil && (len(args) == 0 || strings.HasPrefix(args[0], "-")) { // what follows may be a flag's value
		return ""
	}
	if len(words) <= depth || subcommand(c, words[depth]) != c {
		return ""
	}
	return words[depth]
}

// wanted says what the values of flags are, by the types that pflag knows them by.
var wanted = map[string]string{"float64": "a number", "int": "a whole number", "int64": "a whole number", "bool": "true or false"}

// valueError says what is wrong with the value of a flag: where it is no number of the kind, not in the parser's words.
func valueError(err *pflag.InvalidValueError) string {
	want := wanted[err.GetFlag().Value.Type()]
	if _, parsed := errors.AsType[*strconv.NumError](err); !parsed || want == "" {
		return err.Error()
	}
	if errors.Is(err, strconv.ErrRange) {
		want += " that is not so large"
	}
	return strings.TrimSuffix(err.Error(), err.Unwrap().Error()) + "give " + want
}

// unknownCommand says what is wrong with the name of a command.
func unknownCommand(c *cobra.Command, name string) string {
	what := fmt.Sprintf("unknown command %q", name)
	if use := dockerCommands[c.CommandPath()+" "+name]; use != "" {
		return what + ": " + use
	}
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(name); len(near) > 0 {
		what += ": did you mean " + strings.Join(near, " or ") + "?"
	}
	return what
}

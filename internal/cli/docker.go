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
	"hcs container prune": "use hcs system prune", "hcs image prune": "use hcs system prune", "hcs plugin": "there are no plugins",
	"hcs checkpoint": "the state of processes cannot be kept; hcs commit keeps what they have written",
	"hcs trust":      noTrust, "hcs manifest": "use hcs image inspect, or hcs image raw",
}

// dockerFlags are flags of docker's, without dashes, of these commands, whose names are those under the root.
var dockerFlags = []struct{ commands, flags, use string }{
	{"run create", "expose ip ip6 link link-local-ip mac-address net-alias network-alias p publish P publish-all", noNetworks},
	{"run create", "add-host", "mount a file of names: -v ./hosts:/etc/hosts:ro"},
	{"run create", "annotation label-file", "use --label"},
	{"run create", "a attach", leftOut + "output is shown unless you give -d, and input passed on with -i"},
	{
		"run create update", "blkio-weight blkio-weight-device device-read-bps device-read-iops device-write-bps device-write-iops",
		"use --iops and --bandwidth",
	},
	{"run create", "cgroupns ipc pid uts", leftOut + "a container always has its own"},
	{"run create", "cidfile", "hcs create, and hcs run -d, print the id"},
	{"run create", "cpu-count cpu-percent io-maxbandwidth io-maxiops isolation", "it is for Windows hosts"},
	{"run create update", "cpu-period cpu-quota cpu-rt-period cpu-rt-runtime", "use --cpus"},
	{"run create update", "c cpu-shares", "use --cpu-weight, of which others have 100"},
	{"run create update", "cpuset-mems", "use --cpuset-cpus, or numactl in the container"},
	{"run create update", "kernel-memory memory-reservation memory-swappiness", "use --memory, which is a limit of all memory"},
	{"run create", "device-cgroup-rule gpus", "use --device"},
	{"run create", "disable-content-trust", noTrust},
	{"run create", "domainname", "use --hostname with the whole name"},
	{"run create", "group-add", "use --user USER:GROUP"},
	{
		"run create", "health-cmd health-interval health-retries health-start-interval health-start-period health-timeout no-healthcheck",
		"hcs watches no containers: have a timer run hcs exec",
	},
	{"run create", "init", leftOut + "the first process always is an agent that looks after orphans"},
	{"run create", "log-driver", "output is kept in files, which hcs logs reads: see --log-opt"},
	{"run create", "oom-kill-disable oom-score-adj", "only a limit, as of --memory, has processes killed"},
	{"run create", "platform pull q quiet", "give it to hcs image pull, before"},
	{"run create", "privileged", "use --cap-add, --device and --security-opt for what is needed"},
	{"run create update", "restart", "there is no daemon to do it: have a service manager run hcs run"},
	{"run create", "shm-size", "mount one of that size: --tmpfs /dev/shm:size=N"},
	{"run create", "sig-proxy", "signals are passed on: to have none, use -d and hcs logs -f"},
	{"run create", "stop-timeout", "give it to hcs stop: -t SECONDS"},
	{"run create", "storage-opt", "what a container writes is not limited"},
	{"run create", "volume-driver", noVolumes},
	{"run create", "volumes-from", "give the same -v again"},
	{"run create", "use-api-socket", "hcs has no daemon"},
	{"create", "detach-keys", "give it to hcs start, or attach"},
	{"exec", "privileged", "give --cap-add to hcs run"},
	{"start", "checkpoint checkpoint-dir", "the state of processes cannot be kept"},
	{"ps images info", "f filter", "use --format, and grep"},
	{"ps", "l latest n last", "use hcs ps -a, and head"},
	{"ps inspect", "s size", useSize},
	{"inspect", "type", leftOut + "containers come before images"},
	{"logs", "details until", "use hcs inspect, and hcs logs -t"},
	{"rm", "link l", noNetworks},
	{"rm", "v volumes", leftOut + "directories that were mounted stay"},
	{"stop", "s signal", "use hcs kill -s, or --stop-signal with hcs run"},
	{"commit", "p pause no-pause", leftOut + "the container is paused meanwhile"},
	{"images", "a all tree", leftOut + "all images are shown"},
	{"images", "digests", "use --format '{{.Repository}} {{.Digest}}'"},
	{"pull push", "a all-tags", "hcs image tags shows them: name each"},
	{"pull push", "disable-content-trust", noTrust},
	{"push rmi save", "platform", leftOut + "an image here is for one"},
	{"rmi", "no-prune", leftOut + "layers that other images have stay"},
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
	for _, row := range dockerFlags {
		if slices.Contains(strings.Fields(row.commands), name) && slices.Contains(strings.Fields(row.flags), flag) {
			return row.use
		}
	}
	return ""
}

// flagError says what is wrong with the flags of a command.
func flagError(c *cobra.Command, err error) string {
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

// wanted says what the values of flags are, by the types that pflag knows them by.
var wanted = map[string]string{"float64": "a number", "int": "a whole number", "int64": "a whole number", "bool": "true or false"}

// valueError says what is wrong with the value of a flag: where it is no number of the kind, not in the parser's words.
func valueError(err *pflag.InvalidValueError) string {
	want := wanted[err.GetFlag().Value.Type()]
	if want == "" {
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

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/container"
)

// app is what all commands have: where they read and write, and the flags
// that stand before every command.
type app struct {
	in       *os.File
	out, err io.Writer
	signals  *signals

	config     hcs.Config
	registries *Registries // nil in hcs itself
	logLevel   string
	tracer     *tracer // nil: nothing is traced
	called     string  // "umoci", "wclayer" where the program is called by that name
}

// Main runs the command line of this process and returns its exit status.
func Main() int { return (&app{}).main() }

func (a *app) main() int {
	a.in, a.out, a.err, a.signals = os.Stdin, os.Stdout, os.Stderr, new(signals)
	if err := hcs.ArriveInUserNamespace(); err != nil {
		return a.report(err)
	}
	switch {
	case isCalled(os.Args[0], "umoci"):
		return umociMain(a, os.Args[1:])
	case isCalled(os.Args[0], "wclayer"):
		return wclayerMain(a, os.Args[1:])
	}
	root := newRoot(a, os.Args[1:])
	root.SetArgs(os.Args[1:])
	a.tracer = newTracer()
	c, err := root.ExecuteContextC(context.Background())
	code := a.report(err)
	a.finishTrace(c, err)
	return code
}

// a command of the tree: its name, so that it can be found without being
// made, and what makes it.
type entry struct {
	name string
	make func(*app) *cobra.Command
}

// containerCommands are verbs of "hcs container" and, for short, of hcs.
var containerCommands = []entry{
	{"attach", newAttach},
	{"commit", newCommit},
	{"cp", newCp},
	{"create", newCreate},
	{"diff", newDiff},
	{"events", newEvents},
	{"exec", newExec},
	{"export", newExport},
	{"inspect", newInspect},
	{"kill", newKill},
	{"logs", newLogs},
	{"pause", newPause},
	{"ps", newPs},
	{"rename", newRename},
	{"restart", newRestart},
	{"rm", newRemove},
	{"run", newRun},
	{"start", newStart},
	{"stats", newStats},
	{"stop", newStop},
	{"top", newTop},
	{"unpause", newUnpause},
	{"update", newUpdate},
	{"wait", newWait},
}

// imageShorts are verbs of "hcs image" that docker has without the noun.
var imageShorts = []entry{
	{"images", called("images", newImageList)},
	{"load", newImageLoad},
	{"pull", newImagePull},
	{"push", newImagePush},
	{"rmi", called("rmi", newImageRemove)},
	{"save", newImageSave},
	{"tag", newImageTag},
}

// called gives a command another name.
func called(name string, make func(*app) *cobra.Command) func(*app) *cobra.Command {
	return func(a *app) *cobra.Command {
		c := make(a)
		_, rest, _ := strings.Cut(c.Use, " ")
		c.Use, c.Aliases = strings.TrimSpace(name+" "+rest), nil
		return c
	}
}

var otherCommands = []entry{
	{"container", newContainer},
	{"image", newImage},
	{"info", newSystemInfo},
	{"layer", newLayer},
	{"login", newLogin},
	{"logout", newLogout},
	{"system", newSystem},
	{"unshare", newUnshare},
	{"version", newVersion},
}

// newRoot makes the command tree, or, if the arguments name one command, the
// tree with that one alone: making all takes longer than running most.
func newRoot(a *app, args []string) *cobra.Command {
	root := &cobra.Command{
		Use:           "hcs",
		Short:         "Run containers, and manage images and layers",
		Version:       programVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noCommand,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.SetVersionTemplate("hcs version {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError(c, flagError(c, args, err)) })
	root.SetOut(a.out)
	root.SetErr(a.err)
	a.addFlags(root.PersistentFlags())
	root.AddGroup(&cobra.Group{ID: "container", Title: "Containers:"}, &cobra.Group{ID: "image", Title: "Images:"}, &cobra.Group{ID: "other", Title: "Everything:"})
	only := firstWord(root.PersistentFlags(), args)
	addAll(root, a, only)
	if !root.HasSubCommands() {
		addAll(root, a, "")
	}
	return root
}

func addAll(root *cobra.Command, a *app, only string) {
	addCommands(root, a, "container", containerCommands, only)
	addCommands(root, a, "image", imageShorts, only)
	addCommands(root, a, "other", otherCommands, only)
}

// addCommands adds those of the list with that name, or all for an empty one.
func addCommands(parent *cobra.Command, a *app, group string, list []entry, only string) {
	for _, e := range list {
		if only != "" && e.name != only {
			continue
		}
		c := e.make(a)
		c.GroupID = group
		parent.AddCommand(c)
	}
}

// firstWord returns the first argument that is neither a flag nor the value
// of a flag that stands before all commands.
func firstWord(flags *pflag.FlagSet, args []string) string {
	for i := 0; i < len(args); i++ {
		name, isLong := strings.CutPrefix(args[i], "--")
		switch {
		case !strings.HasPrefix(args[i], "-"):
			return args[i]
		case isLong && flags.Lookup(name) != nil:
			i++
		}
	}
	return ""
}

func newContainer(a *app) *cobra.Command {
	c := &cobra.Command{Use: "container", Short: "Manage containers", Args: noCommand, RunE: showHelp}
	for _, e := range containerCommands {
		verb := e.make(a)
		if e.name == "ps" {
			verb.Use = "ls"
			verb.Aliases = []string{"ps", "list"}
		}
		c.AddCommand(verb)
	}
	c.AddCommand(newContainerPrune(a))
	return c
}

func showHelp(c *cobra.Command, _ []string) error { return c.Help() }

func (a *app) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&a.config.Root, "root", os.Getenv("HCS_ROOT"), "`directory` of what lasts (env HCS_ROOT)")
	f.StringVar(&a.config.Run, "run", os.Getenv("HCS_RUN"), "`directory` of what is gone at boot (env HCS_RUN)")
	f.StringVar(&a.config.Runtime, "runtime", os.Getenv("HCS_RUNTIME"), "what starts containers: native, or name or `path` of an OCI runtime (env HCS_RUNTIME)")
	f.StringVar(&a.config.CgroupParent, "cgroup-parent", os.Getenv("HCS_CGROUP_PARENT"), "control `group` that the containers' are in (env HCS_CGROUP_PARENT)")
	f.StringVar(&a.logLevel, "log-level", "warn", "least `level` of what is logged: debug, info, warn, error")
}

// host opens the host of the flags, as root: an ordinary user's program is
// started again for that, unless it was before. What works without, such as
// listing images, does so where the kernel has no user namespaces for users.
func (a *app) host() (*hcs.Host, error) {
	log, err := a.logger()
	if err != nil {
		return nil, err
	}
	if err := a.becomeRoot(); err != nil {
		log.Warn("going on as an ordinary user", "reason", err)
	}
	return a.hostAsUser()
}

// hostAsUser is host for commands that only read records and talk to shims.
// That takes no root, and starting again would take longer than what they do.
func (a *app) hostAsUser() (*hcs.Host, error) {
	c := a.config
	var err error
	if c.Logger, err = a.logger(); err != nil {
		return nil, err
	}
	return hcs.Open(c)
}

func (a *app) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.logLevel)); err != nil {
		return nil, usage(fmt.Sprintf("log level %q: use debug, info, warn or error", a.logLevel))
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level})), nil
}

// isCalled reports whether the program is called by a name.
func isCalled(program, name string) bool {
	return strings.TrimSuffix(filepath.Base(program), ".exe") == name
}

// tryRoot becomes root as host does, for commands that need no host.
func (a *app) tryRoot() {
	if err := a.becomeRoot(); err != nil {
		a.warn("going on as an ordinary user: " + sentence(err))
	}
}

// becomeRoot is for commands that cannot do without, and for those that read
// something before they open the host.
func (a *app) becomeRoot() error {
	if err := hcs.EnterUserNamespace(); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// systemAsUser opens a container by name or id, on hostAsUser.
func (a *app) systemAsUser(ctx context.Context, ref string) (*container.System, error) {
	h, err := a.hostAsUser()
	if err != nil {
		return nil, err
	}
	return h.Containers().Open(ctx, ref)
}

// takes judges the number of arguments. what says what is missing if there
// are too few; a negative most is any number.
func takes(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usageError(c, "name "+what)
		case most >= 0 && len(args) > most:
			return usageError(c, fmt.Sprintf("unexpected argument %q", args[most]))
		}
		return nil
	}
}

// noCommand refuses what is not a subcommand of c.
func noCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError(c, unknownCommand(c, args[0]))
}

func usageError(c *cobra.Command, what string) error {
	path := c.CommandPath()
	if _, verb, ok := strings.Cut(path, " "); ok {
		what = verb + ": " + what
	}
	return usage(fmt.Sprintf("%s (see %q)", what, path+" --help"))
}

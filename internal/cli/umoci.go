package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The command line of umoci (https://github.com/opencontainers/umoci), for
// the scripts that have been written for it: where this program is called by
// that name, the verbs for layouts are at the root, there are umoci's own
// flags before them, help looks alike, and a failure is a line with its mark
// and exit status 1.

// umociCommands are the layout's commands, with those of tags, which in "hcs
// image" share their names with the local store's.
var umociCommands = append([]entry{
	{"list", newLayoutList},
	{"remove", newLayoutRemove},
	{"tag", newLayoutTag},
}, layoutCommands...)

const (
	umociFailed  = 1
	umociNoTopic = 3 // as umoci exits after a command that it does not know
)

// umociMain runs the command line of umoci.
func umociMain(a *app, args []string) int {
	a.called = "umoci"
	root := newUmoci(a)
	args = doubleDashes(root, args)
	err := a.noTopic(unknownTopic(root, args))
	if err == nil {
		root.SetArgs(args)
		err = root.ExecuteContext(context.Background())
	}
	if isFlagError(err) { // of the flags before the command
		err = a.incorrectUsage(root, err)
	}
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitStatus](err); ok {
		return int(code)
	}
	fmt.Fprintln(a.err, "   ⨯ "+sentence(err))
	return umociFailed
}

func newUmoci(a *app) *cobra.Command {
	a.config.Root, a.config.Run = os.Getenv("HCS_ROOT"), os.Getenv("HCS_RUN")
	root := &cobra.Command{
		Use:           "umoci",
		Short:         "umoci modifies Open Container images",
		Version:       programVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          topics(a),
		RunE:          showHelp,

		TraverseChildren: true, // flags of one command are not another's
	}
	root.SetVersionTemplate("umoci version {{.Version}}\n")
	root.SetHelpTemplate(umociHelp)
	root.SetUsageTemplate(umociHelp)
	root.SetFlagErrorFunc(a.incorrectUsage)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.CompletionOptions.HiddenDefaultCmd = true
	addUmociFlags(a, root)
	root.AddGroup(&cobra.Group{ID: "image", Title: "image"}, &cobra.Group{ID: "layout", Title: "layout"})
	for _, e := range umociCommands {
		c := e.make(a)
		c.GroupID = umociCategory(c)
		if c.HasSubCommands() {
			c.Args = topics(a)
			help := newUmociHelp(a, c)
			help.Hidden = true
			c.AddCommand(help)
		}
		root.AddCommand(c)
	}
	root.SetHelpCommand(newUmociHelp(a, root))
	root.InitDefaultHelpCmd()
	return root
}

// isFlagError reports whether an error is of parsing flags.
func isFlagError(err error) bool {
	for _, is := range []func(error) bool{isA[*pflag.NotExistError], isA[*pflag.InvalidValueError], isA[*pflag.InvalidSyntaxError], isA[*pflag.ValueRequiredError]} {
		if is(err) {
			return true
		}
	}
	return false
}

func isA[E error](err error) bool {
	_, is := errors.AsType[E](err)
	return is
}

// incorrectUsage prints the usage of a command that does not have a flag, or
// not that value of one. What only we judge while flags are parsed, like tags,
// is a failure as others are.
func (a *app) incorrectUsage(c *cobra.Command, err error) error {
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok && bad.GetFlag().Value.Type() != "bool" {
		return usage(err.Error())
	}
	fmt.Fprintf(a.out, "Incorrect Usage: %v\n\n", err)
	return errors.Join(c.Help(), usage(err.Error()))
}

// unknownTopic returns the words from the first on that stands where a command
// is to be and is none: umoci says so before it looks at the flags behind it,
// --help among them.
func unknownTopic(c *cobra.Command, args []string) []string {
	for i := 0; i < len(args) && c.HasSubCommands(); i++ {
		name, isFlag := strings.CutPrefix(args[i], "-")
		if isFlag {
			name, _, withValue := strings.Cut(strings.TrimPrefix(name, "-"), "=")
			f := c.Flag(name)
			if f == nil || name == "help" {
				return nil // which comes first
			}
			if !withValue && f.NoOptDefVal == "" {
				i++ // its value
			}
			continue
		}
		sub := subcommand(c, name)
		if sub == c {
			return args[i:]
		}
		c = sub
	}
	return nil
}

// topics are the arguments of a command that has others: none.
func topics(a *app) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error { return a.noTopic(args) }
}

// noTopic is what umoci says of what is no command.
func (a *app) noTopic(args []string) error {
	if len(args) == 0 {
		return nil
	}
	fmt.Fprintf(a.err, "No help topic for '%s'\n", args[0])
	return exitStatus(umociNoTopic)
}

func newUmociHelp(a *app, root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Aliases: []string{"h"},
		Short:   "Shows a list of commands or help for one command",
		RunE: func(_ *cobra.Command, args []string) error {
			c, _, err := root.Find(args)
			if err != nil || c == root && len(args) > 0 {
				return a.noTopic(args)
			}
			return c.Help()
		},
	}
}

func umociCategory(c *cobra.Command) string {
	if c.Flags().Lookup("layout") != nil {
		return "layout"
	}
	if c.Name() == "raw" {
		return ""
	}
	return "image"
}

func addUmociFlags(a *app, root *cobra.Command) {
	f := root.Flags()
	f.SortFlags = false
	f.Bool("verbose", false, "alias for --log=info")
	f.StringVar(&a.logLevel, "log", "warn", "set the log `level` (debug, info, [warn], error, fatal)")
	f.String("cpu-profile", "", "")
	_ = f.MarkHidden("cpu-profile") // it is there
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return a.umociLevel(f) }
}

func (a *app) umociLevel(f *pflag.FlagSet) error {
	verbose := f.Changed("verbose")
	switch {
	case verbose && f.Changed("log"):
		return usage("--log=* and --verbose are mutually exclusive")
	case verbose:
		a.logLevel = "info"
	case a.logLevel == "fatal":
		a.logLevel = "error"
	case a.logLevel == "warning":
		a.logLevel = "warn"
	}
	_, err := a.logger()
	return err
}

// umociWarn prints a warning with umoci's mark, unless --log wants less.
func (a *app) umociWarn(what string) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.logLevel)); err == nil && level <= slog.LevelWarn {
		fmt.Fprintln(a.err, "   • "+what)
	}
}

// umociHelp has the headings that umoci's help has.
const umociHelp = `NAME:
   {{.CommandPath}} - {{.Short}}

USAGE:
   {{if .HasParent}}{{.UseLine}}{{else}}umoci [global options] command [command options] [arguments...]{{end}}{{if not .HasParent}}

VERSION:
   {{.Version}}{{end}}{{if .GroupID}}

CATEGORY:
   {{.GroupID}}{{end}}{{if .HasAvailableSubCommands}}

COMMANDS:{{$c := .}}{{range .Commands}}{{if and .IsAvailableCommand (eq .GroupID "")}}
   {{rpad .NameAndAliases 28}}{{.Short}}{{end}}{{end}}{{range $g := .Groups}}

   {{.Title}}:{{range $c.Commands}}{{if and .IsAvailableCommand (eq .GroupID $g.ID)}}
     {{rpad .NameAndAliases 26}}{{.Short}}{{end}}{{end}}{{end}}{{end}}{{if .HasParent}}{{if .HasAvailableLocalFlags}}

OPTIONS:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{else}}

GLOBAL OPTIONS:
{{.Flags.FlagUsages | trimTrailingWhitespaces}}{{end}}
`

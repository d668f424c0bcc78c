package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// The command line of wclayer (https://github.com/microsoft/hcsshim, cmd/wclayer),
// for the scripts that have been written for it: where this program is called
// by that name, the verbs for layers are at the root, flags may have a single
// dash, as Go's own package has them, bare files are taken for Windows layers,
// and a failure is a line and exit status 1.

const wclayerFailed = 1

// wclayerMain runs the command line of wclayer.
func wclayerMain(a *app, args []string) int {
	a.called = "wclayer"
	root := newWclayer(a)
	root.SetArgs(doubleDashes(root, args))
	if code := a.report(root.ExecuteContext(context.Background())); code != 0 {
		return wclayerFailed
	}
	return 0
}

func newWclayer(a *app) *cobra.Command {
	a.config.Root, a.config.Run, a.logLevel = os.Getenv("HCS_ROOT"), os.Getenv("HCS_RUN"), "warn"
	root := &cobra.Command{
		Use:           "wclayer",
		Short:         "Windows Container layer utility",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noCommand,
		RunE:          showHelp,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError(c, err.Error()) })
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.CompletionOptions.HiddenDefaultCmd = true
	debug := root.PersistentFlags().Bool("debug", false, "enable debug output")
	root.PersistentPreRun = func(*cobra.Command, []string) {
		if *debug {
			a.logLevel = "debug"
		}
	}
	for _, e := range layerCommands {
		root.AddCommand(e.make(a))
	}
	return root
}

// program is the name that messages begin with.
func (a *app) program() string {
	return cmp.Or(a.called, "hcs")
}

// warn prints what does not keep a command from its work.
func (a *app) warn(what string) {
	if a.called == "umoci" {
		a.umociWarn(what)
		return
	}
	fmt.Fprintf(a.err, "%s: warning: %s\n", a.program(), what)
}

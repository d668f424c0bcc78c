package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// doubleDashes gives long flags that come with one dash the second: command
// lines that are parsed as package flag does it take one for two. What is the
// value of another flag stays as it is.
func doubleDashes(c *cobra.Command, args []string) []string {
	args = slices.Clone(args)
	for i := 0; i < len(args) && args[i] != "--"; i++ {
		word, dashed := strings.CutPrefix(args[i], "-")
		if !dashed {
			c = subcommand(c, args[i])
			continue
		}
		name, _, withValue := strings.Cut(strings.TrimPrefix(word, "-"), "=")
		f := longFlag(c, name)
		if f == nil {
			continue
		}
		args[i] = "--" + strings.TrimPrefix(word, "-")
		if !withValue && f.NoOptDefVal == "" {
			i++ // its value
		}
	}
	return args
}

func longFlag(c *cobra.Command, name string) *pflag.Flag {
	if len(name) < 2 {
		return nil
	}
	return c.Flag(name)
}

// subcommand returns that of c with a name, or c itself.
func subcommand(c *cobra.Command, name string) *cobra.Command {
	for _, sub := range c.Commands() {
		if sub.Name() == name || sub.HasAlias(name) {
			return sub
		}
	}
	return c
}

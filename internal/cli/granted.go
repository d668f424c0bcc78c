package cli

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// addGranted adds flags of docker's for what always is so here: they may be given, and a value that means something else says
// what to use.
func addGranted(f *pflag.FlagSet) {
	grant(f, "init", "", granted{is: yes})
	grant(f, "no-healthcheck", "", granted{is: yes})
	grant(f, "restart", "", granted{[]string{"no"}, noRestarts})
	grant(f, "log-driver", "", granted{[]string{"json-file", "local", "k8s-file"}, "output is kept in files, which hcs logs reads: see --log-opt"})
}

const noRestarts = "there is no daemon to do it: have a service manager run hcs run"

var yes = []string{"true"}

// grant adds one, which the help does not show: it is for fingers that know it.
func grant(f *pflag.FlagSet, name, short string, g granted) {
	f.VarP(&g, name, short, "")
	if g.isBool() {
		f.Lookup(name).NoOptDefVal = yes[0]
	}
	_ = f.MarkHidden(name)
}

// granted is a flag that says what is so anyway.
type granted struct {
	is  []string // the values that say so
	use string   // where another is wanted
}

func (*granted) String() string { return "" }

// Type is that of a value in pflag's words.
func (g *granted) Type() string {
	if g.isBool() {
		return "bool"
	}
	return "string"
}

func (g *granted) isBool() bool { return slices.Contains(g.is, yes[0]) }

// Set judges a value.
func (g *granted) Set(value string) error {
	if slices.Contains(g.is, strings.ToLower(value)) {
		return nil
	}
	return errors.New(cmp.Or(g.use, "it always is so"))
}

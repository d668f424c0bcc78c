package cli

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/layer"
)

// readingFlags say what is done about malformed layers of Windows images.
type readingFlags struct{ strict bool }

func (r *readingFlags) addFlags(f *pflag.FlagSet) {
	f.BoolVar(&r.strict, "strict", false, "refuse malformed layers for Windows instead of mending them with a warning")
}

func (r *readingFlags) reading(a *app) bundle.Reading {
	return bundle.Reading{Strict: r.strict, Warn: func(n int, w layer.Warning) {
		a.warn(fmt.Sprintf("layer %d: %s", n, w))
	}}
}

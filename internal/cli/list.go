package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"
)

// listOptions are the flags of a listing.
type listOptions struct {
	format string
	quiet  bool
}

func (o *listOptions) addFlags(f *pflag.FlagSet, quiet string) {
	f.StringVar(&o.format, "format", "table", "table, json (an object a line), or a Go `template`")
	if quiet != "" {
		f.BoolVarP(&o.quiet, "quiet", "q", false, quiet)
	}
}

// row is an item of a listing: a struct, whose fields templates and JSON have
// by name, that knows how it is shown in a table.
type row interface {
	header() []string
	cells() []string
	key() string // what is shown of it with -q
}

// list prints rows as the flags say.
func list[R row](w io.Writer, o listOptions, rows []R) error {
	switch {
	case o.quiet:
		for _, r := range rows {
			fmt.Fprintln(w, r.key())
		}
		return nil
	case o.format == "" || o.format == "table":
		return table(w, rows)
	case o.format == "json":
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		for _, r := range rows {
			if err := e.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	return templated(w, o.format, rows)
}

func table[R row](w io.Writer, rows []R) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	var none R
	fmt.Fprintln(t, strings.Join(none.header(), "\t"))
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r.cells(), "\t"))
	}
	return t.Flush()
}

// inspect prints values as a JSON array, or each by a template.
func inspect[T any](w io.Writer, format string, values []T) error {
	if format != "" && format != "json" {
		return templated(w, format, values)
	}
	if values == nil {
		values = []T{}
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "    ")
	return e.Encode(values)
}

// ago says roughly how long something is past.
func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return roughly(time.Since(t)) + " ago"
}

func roughly(d time.Duration) string {
	for _, u := range []struct {
		name  string
		size  time.Duration
		least int64
	}{
		{"year", 365 * 24 * time.Hour, 2},
		{"month", 30 * 24 * time.Hour, 2},
		{"week", 7 * 24 * time.Hour, 2},
		{"day", 24 * time.Hour, 2},
		{"hour", time.Hour, 2},
		{"minute", time.Minute, 2},
		{"second", time.Second, 2},
	} {
		if n := int64(d / u.size); n >= u.least {
			return fmt.Sprintf("%d %ss", n, u.name)
		}
	}
	if d < time.Second {
		return "less than a second"
	}
	return "1 second"
}

// shortDigest is the part of a digest that people are shown.
func shortDigest(d string) string {
	_, hex, ok := strings.Cut(d, ":")
	if !ok {
		hex = d
	}
	return hex[:min(12, len(hex))]
}

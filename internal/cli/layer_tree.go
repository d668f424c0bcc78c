package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/layer"
)

type layerTreeOptions struct {
	layerSource
	format string
	long   bool
}

func newLayerTree(a *app) *cobra.Command {
	var o layerTreeOptions
	c := &cobra.Command{
		Use:   "tree [flags] LAYER",
		Short: "List what is in a layer",
		Long: `List the entries of a layer in its own order, with Windows' attributes or the
mode. With --format json each entry is a line, with all metadata and the digest
of its content.

` + layerUsage,
		Args: takes(1, 1, "a layer"),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *layerTreeOptions) addFlags(f *pflag.FlagSet) {
	o.layerSource.addFlags(f)
	f.BoolVarP(&o.long, "long", "l", false, "also show creation times, security descriptors as SDDL, reparse points, extended attributes")
	f.StringVar(&o.format, "format", "text", "text or json")
}

func (o *layerTreeOptions) run(ctx context.Context, a *app, ref string) error {
	if o.format != "text" && o.format != "json" {
		return usage(fmt.Sprintf("format %q: use text or json", o.format))
	}
	w := bufio.NewWriter(a.out)
	show := o.text(w)
	if o.format == "json" {
		show = listJSON(w)
	}
	return errors.Join(o.each(ctx, a, ref, show), w.Flush())
}

func listJSON(w io.Writer) func(*layer.Reader, *layer.Entry) error {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	var files layerFiles
	return func(r *layer.Reader, e *layer.Entry) error {
		f := files.file(e)
		if err := f.addDigest(e, r); err != nil {
			return err
		}
		return out.Encode(f)
	}
}

func (o *layerTreeOptions) text(w io.Writer) func(*layer.Reader, *layer.Entry) error {
	var files layerFiles
	return func(_ *layer.Reader, e *layer.Entry) error {
		f := files.file(e)
		if _, err := fmt.Fprintln(w, f.line()); err != nil || !o.long {
			return err
		}
		for _, line := range f.details() {
			if _, err := fmt.Fprintln(w, "    "+line); err != nil {
				return err
			}
		}
		return nil
	}
}

// line is the entry in a listing.
func (f *layerFile) line() string {
	how, when := f.Mode, ""
	if f.NT != nil && f.Stream == "" {
		how = f.NT.Attributes
	}
	if f.ModTime != nil {
		when = f.ModTime.Format("2006-01-02 15:04:05")
	}
	line := fmt.Sprintf("%-9s %-24s %12d %19s  %s", f.Kind, how, f.Size, when, f.path())
	if target := f.target(); target != "" {
		line += " -> " + quoted(target)
	}
	return line
}

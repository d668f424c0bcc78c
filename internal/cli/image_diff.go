package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/image"
)

type imageDiffOptions struct {
	platform, format string
	limits           limitFlags
	reading          readingFlags
}

func newImageDiff(a *app) *cobra.Command {
	var o imageDiffOptions
	c := &cobra.Command{
		Use:   "diff [flags] A B",
		Short: "Show what image B has otherwise than image A",
		Long: `Compare the configurations of two images, and the files that their layers add up
to. Each is a name of the local store, or a place as in oci:DIR:TAG. A line is
A for what is added, M for what is modified (and how), D for what is deleted. Of
images for Windows that are attributes, descriptors and alternate streams, too,
and what changes in the registry follows as .reg text.`,
		Args:              takes(2, 2, "two images"),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
		ValidArgsFunction: a.completeImages,
	}
	o.addFlags(c.Flags())
	return c
}

func (o *imageDiffOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.platform, "platform", "", "which image of several, `OS[(VERSION)]/ARCH[/VARIANT]` (default: this machine's)")
	f.StringVar(&o.format, "format", "text", "text or json")
	o.limits.addFlag(f)
	o.reading.addFlags(f)
}

func (o *imageDiffOptions) run(ctx context.Context, a *app, args []string) error {
	if o.format != "text" && o.format != "json" {
		return usage(fmt.Sprintf("format %q: use text or json", o.format))
	}
	platform, err := parsePlatform(o.platform)
	if err != nil {
		return err
	}
	var sides [2]bundle.Side
	for i, arg := range args {
		src, img, err := a.anyImage(ctx, arg, platform, o.limits.Image)
		if err != nil {
			return err
		}
		defer func() { _ = src.Close() }() // read only
		r := o.reading.reading(a)
		sides[i] = bundle.Side{Source: src, Image: img, Limits: o.limits.Layer, Strict: r.Strict, Warn: r.Warn}
	}
	d, err := bundle.Diff(ctx, sides[0], sides[1])
	if err != nil {
		return err
	}
	if o.format == "json" {
		e := json.NewEncoder(a.out)
		e.SetEscapeHTML(false)
		return e.Encode(d)
	}
	return printDifference(a.out, d)
}

// anyImage finds an image in the local store or wherever the reference says.
// The caller closes the source.
func (a *app) anyImage(ctx context.Context, s string, platform v1.Platform, limits image.Limits) (image.Source, *image.Image, error) {
	ref, err := image.ParseRef(s)
	if err != nil {
		return nil, nil, err
	}
	if ref.Transport != image.TransportStore {
		return image.OpenImageWithin(ctx, ref, platform, limits)
	}
	h, err := a.host()
	if err != nil {
		return nil, nil, err
	}
	img, err := h.Images().Image(ctx, s)
	return h.Images(), img, err
}

func printDifference(w io.Writer, d bundle.Difference) error {
	var errs []error
	show := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format, args...)
		errs = append(errs, err)
	}
	for _, c := range d.Config {
		switch {
		case c.Before == nil:
			show("A config %s: %s\n", c.Key, c.After)
		case c.After == nil:
			show("D config %s: %s\n", c.Key, c.Before)
		default:
			show("M config %s: %s -> %s\n", c.Key, c.Before, c.After)
		}
	}
	for _, f := range d.Files {
		how := ""
		if what := shownWhat(f); len(what) > 0 {
			how = " (" + strings.Join(what, ", ") + ")"
		}
		show("%s %s%s\n", strings.ToUpper(f.Kind[:1]), shownName(f.Name), how)
		for line := range strings.Lines(f.Registry) {
			show("    %s\n", strings.TrimRight(line, "\r\n"))
		}
	}
	return errors.Join(errs...)
}

// shownWhat names what was modified, and says of some what it was and is.
func shownWhat(f bundle.FileChange) []string {
	what := slices.Clone(f.What)
	for i, name := range what {
		for _, v := range f.Values {
			if v.What == name {
				what[i] = fmt.Sprintf("%s %s -> %s", name, shownValue(v.Before), shownValue(v.After))
			}
		}
	}
	return what
}

func shownValue(s string) string {
	if s == "" {
		return "none"
	}
	return quoted(s)
}

// shownName quotes what could do something to a terminal.
func shownName(name string) string {
	if name == "." {
		name = ""
	}
	name = "/" + name
	if q := fmt.Sprintf("%q", name); q[1:len(q)-1] != name {
		return q
	}
	return name
}

package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/bundle"
)

type layoutInsertOptions struct {
	at       place
	tag      newTag
	history  historyFlags
	compress compressFlag
	mappings mappingFlags
	reading  readingFlags

	opaque, whiteout bool
}

func newLayoutInsert(a *app) *cobra.Command {
	var o layoutInsertOptions
	c := &cobra.Command{
		Use:   "insert --image DIR[:TAG] {SOURCE TARGET | --whiteout TARGET}",
		Short: "insert content into an OCI image",
		Long: `Insert a file or directory into an image as a new layer, or, with --whiteout,
a layer that removes the target.

What lower layers hold is in the image still; to remove secrets from it, build
it anew.

Into an image for Windows goes a layer as Windows has them: the target is one of
drive C:, attributes and security descriptors are those of new files there, and
--opaque removes one by one what the directory has.`,
		Args: func(c *cobra.Command, args []string) error {
			if slices.Contains(args, "") {
				return usageError(c, "a path is empty")
			}
			if o.whiteout {
				return takes(1, 1, "the target")(c, args)
			}
			return takes(2, 2, "source and target")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, c, args) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *layoutInsertOptions) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.BoolVar(&o.whiteout, "whiteout", false, "insert a 'removal entry' for the given path")
	f.BoolVar(&o.opaque, "opaque", false, "mask any previous entries in the target directory")
	o.tag.addFlags(f)
	o.compress.addFlags(f)
	o.history.addFlags(f)
	o.mappings.addFlags(f)
	o.at.addPlatform(f)
	o.reading.addFlags(f)
}

func (o *layoutInsertOptions) run(ctx context.Context, a *app, c *cobra.Command, args []string) error {
	mappings, err := o.mappings.parse()
	if err != nil {
		return err
	}
	l, img, err := o.at.open(ctx, c)
	if err != nil {
		return err
	}
	h, err := o.history.entry(c, "")
	if err != nil {
		return err
	}
	e, err := l.Edit(ctx, img)
	if err != nil {
		return err
	}
	defer e.Close()
	in := bundle.Insertion{Target: args[len(args)-1], Mappings: mappings, Kind: bundle.Merge}
	switch {
	case o.whiteout: // and if it is opaque too, there is nothing more to mask
		in.Kind = bundle.Whiteout
	case o.opaque:
		in.Kind = bundle.Replace
	}
	if !o.whiteout {
		in.Source = args[0]
	}
	if in.SourceDate, err = sourceDate(); err != nil {
		return err
	}
	r := o.reading.reading(a)
	into := bundle.Side{Source: l, Image: img, Strict: r.Strict, Warn: r.Warn}
	if _, err := bundle.Insert(ctx, into, e, o.compress.of(e), in); err != nil {
		return err
	}
	addHistory(e, h)
	_, err = e.Commit(ctx, o.tag.or(o.at.tag))
	return err
}

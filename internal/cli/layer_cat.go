package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

func newLayerCat(a *app) *cobra.Command {
	var o layerSource
	c := &cobra.Command{
		Use:   "cat [flags] LAYER NAME[:STREAM]",
		Short: "Print a file of a layer, or an alternate stream",
		Long: `Print the content of a file in a layer. In a Windows layer the name begins with
its part, as in Files/Windows/win.ini; its case does not count.

` + layerUsage,
		Args: takes(2, 2, "a layer and a file"),
		RunE: func(c *cobra.Command, args []string) error { return o.cat(c.Context(), a, args[0], args[1]) },
	}
	o.addFlags(c.Flags())
	return c
}

func (s *layerSource) cat(ctx context.Context, a *app, ref, name string) error {
	return s.find(ctx, a, ref, name, func(r *layer.Reader) error {
		_, err := r.WriteTo(a.out)
		return err
	})
}

// find calls f with the first file or stream of that name, whose content can
// be read. The layer is read to its end, because only that proves its digest.
func (s *layerSource) find(ctx context.Context, a *app, ref, name string, f func(*layer.Reader) error) error {
	name = strings.Trim(strings.ReplaceAll(name, `\`, "/"), "/")
	missing := fmt.Errorf("find %q in layer %s: there is no such file: %w", name, ref, errdefs.ErrNotFound)
	found := false
	err := s.each(ctx, a, ref, func(r *layer.Reader, e *layer.Entry) error {
		if found || !isNamed(e, name) {
			return nil
		}
		switch e.Kind {
		case layer.Whiteout: // which may be there for what the layer has in place of it
			missing = fmt.Errorf("find %q in layer %s: the layer deletes it: %w", name, ref, errdefs.ErrNotFound)
			return nil
		case layer.File, layer.Stream:
			found = true
			return f(r)
		case layer.Hardlink:
			return fmt.Errorf("%q is another name of %q: %w", e.Name, e.Link, errdefs.ErrFailedPrecondition)
		}
		return fmt.Errorf("%q is a %s: %w", e.Name, e.Kind, errdefs.ErrFailedPrecondition)
	})
	if err == nil && !found {
		return missing
	}
	return err
}

// isNamed compares names as the layer's system does.
func isNamed(e *layer.Entry, name string) bool {
	if e.NT == nil && e.Stream == "" {
		return e.Name == name
	}
	full := e.Name
	if e.Stream != "" {
		full += ":" + e.Stream
	}
	return ntfs.EqualFold(full, name)
}

package cli

import (
	"cmp"
	"context"
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

func newLayerCat(a *app) *cobra.Command {
	var o layerSource
	c := &cobra.Command{
		Use:   "cat [flags] LAYER NAME[:STREAM]",
		Short: "Print a file of a layer, or an alternate stream",
		Long: `Print the content of a file in a layer. In a Windows layer the name begins with
its part, as in Files/Windows/win.ini, or is one of drive C:, which is Files, as in
'C:\Windows\win.ini'; its case does not count. Of a hard link it is the file's, also
where a layer below has that.

` + layerUsage,
		Args: takes(2, 2, "a layer and a file"),
		RunE: func(c *cobra.Command, args []string) error { return o.cat(c.Context(), a, args[0], args[1]) },
	}
	o.addFlags(c.Flags())
	return c
}

func (s *layerSource) cat(ctx context.Context, a *app, ref, name string) error {
	return s.find(ctx, a, ref, parseLayerName(name), func(r *layer.Reader) error {
		_, err := r.WriteTo(a.out)
		return err
	})
}

// maxLinks is how many hard links are followed: a chain of them may lead in
// a circle.
const maxLinks = 16

// find calls f with the file or stream of that name, whose content can be
// read. Behind a hard link it is the file's, in this layer or one below it.
func (s *layerSource) find(ctx context.Context, a *app, ref string, name layerName, f func(*layer.Reader) error) error {
	first, err := s.findIn(ctx, a, ref, name, f)
	if err != nil || first.found {
		return err
	}
	if first.link == "" {
		return cmp.Or(first.deleted, missingIn(ref, name))
	}
	if ref == "-" {
		return fault(errdefs.ErrInvalidArgument, "find %s in standard input, which can be read once only: it is another name of %q", name, first.link)
	}
	below, err := s.below(ctx, a, ref)
	if err != nil {
		return err
	}
	target := name.linked(first.link)
	for _, ref := range append([]string{ref}, below...) {
		for range maxLinks {
			at, err := s.findIn(ctx, a, ref, target, f)
			if err != nil || at.found {
				return err
			}
			if at.link == "" {
				break
			}
			target = name.linked(at.link)
		}
	}
	return fmt.Errorf("%s is another name of %q: %w", name, first.link, missingIn(ref, target))
}

func missingIn(ref string, name layerName) error {
	return fault(errdefs.ErrNotFound, "find %s in layer %s: there is no such file", name, ref)
}

// findResult is what one layer has of a name.
type findResult struct {
	found   bool
	link    string // the name is another one of this file
	deleted error  // the layer has nothing of it but a whiteout
}

// findIn calls f with the first file or stream of that name in one layer. The
// layer is read to its end, because only that proves its digest.
func (s *layerSource) findIn(ctx context.Context, a *app, ref string, name layerName, f func(*layer.Reader) error) (findResult, error) {
	var is findResult
	err := s.each(ctx, a, ref, func(r *layer.Reader, e *layer.Entry) error {
		if is.found {
			return nil
		}
		if e.Kind == layer.Hardlink && name.isOf(e) {
			is.link = e.Link
			return nil
		}
		if !name.is(e) {
			return nil
		}
		switch e.Kind {
		case layer.Whiteout: // which may be there for what the layer has in place of it
			is.deleted = fault(errdefs.ErrNotFound, "find %s in layer %s: the layer deletes it", name, ref)
			return nil
		case layer.File, layer.Stream:
			is.found = true
			return f(r)
		}
		what := e.Kind.String()
		if f := new(layerFiles).file(e); f.target() != "" {
			what += " to " + quoted(f.target())
		}
		return fault(errdefs.ErrFailedPrecondition, "%q is a %s", e.Name, what)
	})
	return is, err
}

// below returns the layers below one, the nearest first, as far as they are
// known.
func (s *layerSource) below(ctx context.Context, a *app, ref string) ([]string, error) {
	p, err := s.locate(ctx, a, ref)
	if err != nil {
		return nil, err
	}
	if err := p.close(); err != nil {
		return nil, err
	}
	if p.src == nil {
		l, err := rootfs.InspectLayer(ref)
		if err != nil { // a file, or a transport folder
			return nil, nil //nolint:nilerr // of which nobody knows
		}
		return l.Parents, nil
	}
	var refs []string
	name, _, numbered := cutLast(ref, "#")
	if _, err := digest.Parse(ref); err == nil {
		numbered = false
	}
	for i := p.at - 1; i >= 0; i-- {
		if numbered {
			refs = append(refs, name+"#"+strconv.Itoa(i+1))
		} else {
			refs = append(refs, p.img.DiffIDs()[i].String())
		}
	}
	return refs, nil
}

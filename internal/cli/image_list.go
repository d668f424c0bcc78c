package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/image"
)

type imageListOptions struct {
	listOptions
	noTrunc bool
}

func newImageList(a *app) *cobra.Command {
	var o imageListOptions
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List images",
		Args:    takes(0, 0, ""),
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *imageListOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVar(&o.noTrunc, "no-trunc", false, "show ids in full")
	o.listOptions.addFlags(f, "show ids only")
}

func (o *imageListOptions) run(ctx context.Context, a *app) error {
	h, err := a.host()
	if err != nil {
		return err
	}
	images, err := h.Images().Images(ctx)
	rows := make([]imageRow, len(images))
	for i, img := range images {
		rows[i] = o.row(img)
	}
	return joined([]error{err, list(a.out, o.listOptions, rows)})
}

// imageRow has the names that docker's templates use.
type imageRow struct {
	Repository, Tag, ID     string
	Digest                  string
	CreatedAt, CreatedSince string
	Size                    string
}

func (imageRow) header() []string {
	return []string{"REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"}
}

func (r imageRow) cells() []string {
	return []string{r.Repository, r.Tag, r.ID, r.CreatedSince, r.Size}
}

func (r imageRow) key() string { return r.ID }

func (o *imageListOptions) row(img *image.Image) imageRow {
	r := imageRow{
		Repository: "<none>", Tag: "<none>", CreatedSince: "N/A", ID: img.ID().String(), Digest: img.Descriptor.Digest.String(), Size: humanSize(img.Size()),
	}
	if i := strings.LastIndex(img.Name, ":"); i > strings.LastIndex(img.Name, "/") {
		r.Repository, r.Tag = img.Name[:i], img.Name[i+1:]
	}
	if !o.noTrunc {
		r.ID = shortDigest(r.ID)
	}
	if t := img.Config.Created; t != nil {
		r.CreatedAt, r.CreatedSince = t.Format(time.RFC3339), ago(*t)
	}
	return r
}

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
		Use:     "ls [flags] [NAME[:TAG]]",
		Aliases: []string{"list"},
		Short:   "List images",
		Args:    takes(0, 1, ""),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },

		ValidArgsFunction: a.completeImages,
	}
	o.addFlags(c.Flags())
	return c
}

func (o *imageListOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVar(&o.noTrunc, "no-trunc", false, "show ids in full")
	o.listOptions.addFlags(f, "show ids only")
	grant(f, "all", "a", granted{is: yes}) // all are shown
}

func (o *imageListOptions) run(ctx context.Context, a *app, names []string) error {
	h, err := a.host()
	if err != nil {
		return err
	}
	images, err := h.Images().Images(ctx)
	var rows []imageRow
	for _, img := range images {
		if len(names) == 0 || sameImage(img.Name, names[0]) {
			rows = append(rows, o.row(img))
		}
	}
	return joined([]error{err, list(a.out, o.listOptions, rows)})
}

// imageRow has the names that docker's templates use.
type imageRow struct {
	Repository   string
	Tag          string
	ID           string `title:"IMAGE ID"`
	Digest       string
	CreatedAt    string
	CreatedSince string `title:"CREATED"`
	Size         string
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
	if repository, tag := splitTag(img.Name); tag != "" {
		r.Repository, r.Tag = repository, tag
	}
	if !o.noTrunc {
		r.ID = shortDigest(r.ID)
	}
	if t := img.Config.Created; t != nil {
		r.CreatedAt, r.CreatedSince = t.Format(time.RFC3339), ago(*t)
	}
	return r
}

// splitTag takes the tag from an image's name; it is empty if there is none.
func splitTag(name string) (repository, tag string) {
	if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") {
		return name[:i], name[i+1:]
	}
	return name, ""
}

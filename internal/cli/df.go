package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/container"
)

type dfOptions struct {
	listOptions
	verbose bool
}

func newSystemDf(a *app) *cobra.Command {
	var o dfOptions
	c := &cobra.Command{
		Use:   "df",
		Short: "Show what takes room on the disk",
		Long: `Show what takes room on the disk: images as they were loaded, layers as they were unpacked, and what containers have
written and printed. What is reclaimable belongs to images without a container, to layers without either, and to containers that
do not run.`,
		Args: takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
	o.listOptions.addFlags(c.Flags(), "")
	c.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "show each")
	return c
}

func (o *dfOptions) run(ctx context.Context, a *app) error {
	if o.verbose && o.format != "table" {
		return usage("system df: -v is a table: give no --format with it")
	}
	h, err := a.host()
	if err != nil {
		return err
	}
	u, err := h.Usage(ctx)
	if o.verbose {
		return joined([]error{err, o.each(a, &u)})
	}
	return joined([]error{err, list(a.out, o.listOptions, dfRows(&u))})
}

// dfRow has the names that docker's templates use.
type dfRow struct{ Type, TotalCount, Active, Size, Reclaimable string }

func (dfRow) header() []string { return []string{"TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"} }
func (r dfRow) cells() []string {
	return []string{r.Type, r.TotalCount, r.Active, r.Size, r.Reclaimable}
}
func (r dfRow) key() string { return r.Type }

// tally adds up things of one kind.
type tally struct {
	total, active     int
	size, reclaimable int64
}

func (t *tally) add(size int64, active bool) {
	t.total++
	t.size += size
	if active {
		t.active++
	} else {
		t.reclaimable += size
	}
}

func (t *tally) row(kind string) dfRow {
	r := dfRow{
		Type: kind, TotalCount: strconv.Itoa(t.total), Active: strconv.Itoa(t.active), Size: humanSize(t.size),
		Reclaimable: humanSize(t.reclaimable),
	}
	if t.size > 0 {
		r.Reclaimable += fmt.Sprintf(" (%d%%)", 100*t.reclaimable/t.size)
	}
	return r
}

func dfRows(u *hcs.Usage) []dfRow {
	var images, layers, containers tally
	for i := range u.Images {
		images.add(0, u.Images[i].Containers > 0)
	}
	images.size, images.reclaimable = u.Blobs, u.Unused // they share
	for i := range u.Layers {
		layers.add(u.Layers[i].Size(), u.Layers[i].Users > 0)
	}
	for i := range u.Containers {
		c := &u.Containers[i]
		containers.add(c.Written+c.Logs, c.State == container.Running || c.State == container.Paused)
	}
	return []dfRow{images.row("Images"), layers.row("Layers"), containers.row("Containers")}
}

func (o *dfOptions) each(a *app, u *hcs.Usage) error {
	images := grid{"Images", []string{"IMAGE", "IMAGE ID", "SIZE", "OWN SIZE", "CONTAINERS"}, nil}
	for i := range u.Images {
		img := &u.Images[i]
		images.add(cmp.Or(img.Name, "<none>"), shortDigest(img.ID().String()), humanSize(img.Size()), humanSize(img.Own), strconv.Itoa(img.Containers))
	}
	layers := grid{"Layers", []string{"LAYER ID", "SIZE", "CREATED", "USERS"}, nil}
	for i := range u.Layers {
		l := &u.Layers[i]
		layers.add(shortDigest(l.ID().String()), humanSize(l.Size()), ago(l.Created()), strconv.Itoa(l.Users))
	}
	containers := grid{"Containers", []string{"CONTAINER ID", "IMAGE", "WRITTEN", "LOGS", "STATE", "NAME"}, nil}
	for i := range u.Containers {
		c := &u.Containers[i]
		containers.add(container.ShortID(c.ID()), c.Record().Spec.Image, humanSize(c.Written), humanSize(c.Logs), string(c.State), c.Name())
	}
	for _, g := range []grid{images, layers, containers} {
		if err := g.print(a.out); err != nil {
			return err
		}
	}
	return nil
}

// grid is a table that is nothing else.
type grid struct {
	title string
	heads []string
	rows  [][]string
}

func (g *grid) add(cells ...string) { g.rows = append(g.rows, cells) }

func (g *grid) print(to io.Writer) error {
	t := tabwriter.NewWriter(to, 0, 8, 3, ' ', 0)
	fmt.Fprintln(t, g.title+":")
	fmt.Fprintln(t, strings.Join(g.heads, "\t"))
	for _, row := range g.rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	fmt.Fprintln(t)
	return t.Flush()
}

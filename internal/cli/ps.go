package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/container"
)

type psOptions struct {
	listOptions
	all, noTrunc, latest, size bool
	last                       int
	filters                    []string
}

func newPs(a *app) *cobra.Command {
	var o psOptions
	c := &cobra.Command{
		Use:   "ps",
		Short: "List containers",
		Example: `  hcs ps -a --filter status=exited --filter label=app=web
  hcs ps --format 'table {{.Names}}\t{{.Status}}'`,
		Args: takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *psOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.all, "all", "a", false, "also those that do not run")
	f.StringArrayVarP(&o.filters, "filter", "f", nil, "only those with `KEY=VALUE`: "+strings.Join(filterKeys(), ", ")+"; of several values of one key any, of label all")
	f.IntVarP(&o.last, "last", "n", -1, "the last `number` that were made, running or not")
	f.BoolVarP(&o.latest, "latest", "l", false, "the last one that was made, running or not")
	f.BoolVarP(&o.size, "size", "s", false, "also how much each has written")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "show ids and commands in full")
	o.listOptions.addFlags(f, "show ids only")
}

func (o *psOptions) run(ctx context.Context, a *app) error {
	h, err := a.psHost(o)
	if err != nil {
		return err
	}
	systems, err := h.Containers().Systems(ctx)
	errs := []error{err}
	slices.Reverse(systems) // the youngest first
	want, err := parseFilters(o.filters, systems)
	if err != nil {
		return err
	}
	if o.latest {
		o.last = 1
	}
	var rows []containerRow
	for _, s := range systems {
		r, shown, err := o.look(ctx, s, want)
		if err != nil && !isGone(err) {
			errs = append(errs, err)
		}
		if err == nil && shown && (o.last < 0 || len(rows) < o.last) {
			rows = append(rows, r)
		}
		s.Close()
	}
	if o.size && (o.format == "" || o.format == "table") {
		return joined(append(errs, list(a.out, o.listOptions, sized(rows))))
	}
	return joined(append(errs, list(a.out, o.listOptions, rows)))
}

// psHost is the host as root where files are measured, which only root may look at.
func (a *app) psHost(o *psOptions) (*hcs.Host, error) {
	if o.measures() {
		return a.host()
	}
	return a.hostAsUser()
}

func (o *psOptions) measures() bool { return o.size || strings.Contains(o.format, ".Size") }

// look returns the row of a container, and whether it is one of those wanted.
func (o *psOptions) look(ctx context.Context, s *container.System, want psFilter) (r containerRow, shown bool, err error) {
	st, err := s.Status(ctx)
	if err != nil {
		return r, false, err
	}
	rec := s.Record()
	if !want.matches(&rec, &st) || !(o.all || o.last >= 0 || want.anyState || isRunning(st)) {
		return r, false, nil
	}
	r = o.row(rec, st)
	if o.measures() && !rec.Spec.WriteInPlace {
		scratch, err := s.Scratch()
		if err != nil {
			return r, true, err
		}
		written, err := scratch.Usage(ctx)
		r.Size = humanSize(written)
		return r, true, err
	}
	return r, true, nil
}

// containerRow has the names that docker's templates use.
type containerRow struct {
	ID         string `title:"CONTAINER ID"`
	Image      string
	Command    string
	CreatedAt  string
	RunningFor string `title:"CREATED"`
	State      string
	Status     string
	Names      string
	Labels     string
	Mounts     string
	Networks   string
	Ports      string // of none yet
	Size       string `json:",omitempty"`

	labels map[string]string
}

// Label is for templates.
func (r containerRow) Label(key string) string { return r.labels[key] }

func (containerRow) header() []string {
	return []string{"CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"}
}

func (r containerRow) cells() []string {
	return []string{r.ID, r.Image, r.Command, r.RunningFor, r.Status, r.Names}
}

func (r containerRow) key() string { return r.ID }

// sizedRow is a row that shows the size, too.
type sizedRow struct{ containerRow }

func (r sizedRow) header() []string { return append(r.containerRow.header(), "SIZE") }
func (r sizedRow) cells() []string  { return append(r.containerRow.cells(), r.Size) }

func sized(rows []containerRow) []sizedRow {
	list := make([]sizedRow, len(rows))
	for i, r := range rows {
		list[i] = sizedRow{r}
	}
	return list
}

func (o *psOptions) row(rec container.Record, st container.Status) containerRow {
	r := containerRow{
		ID: rec.ID, Image: rec.Spec.Image, CreatedAt: rec.Created.Format(time.RFC3339), RunningFor: ago(rec.Created),
		State: string(st.State), Status: describe(st), Names: rec.Name(), Networks: string(cmp.Or(rec.Spec.Network, container.NetworkNone)),
		labels: rec.Spec.Labels,
	}
	if r.Image == "" {
		r.Image = rec.Spec.RootDir
	}
	if rec.Spec.Main != nil {
		r.Command = strings.Join(rec.Spec.Main.Args, " ")
	}
	if !o.noTrunc {
		r.ID = container.ShortID(r.ID)
		if c := []rune(r.Command); len(c) > 20 {
			r.Command = string(c[:19]) + "…"
		}
	}
	r.Command = strconv.Quote(r.Command)
	for _, key := range slices.Sorted(maps.Keys(r.labels)) {
		r.Labels = listed(r.Labels, key+"="+r.labels[key])
	}
	for _, m := range rec.Spec.Mounts {
		r.Mounts = listed(r.Mounts, cmp.Or(m.Source, m.Type))
	}
	return r
}

func listed(list, one string) string {
	if list == "" {
		return one
	}
	return list + "," + one
}

// describe says in a few words how a container is.
func describe(st container.Status) string {
	switch st.State {
	case container.Running:
		return "Up " + roughly(time.Since(st.Started))
	case container.Paused:
		return "Up " + roughly(time.Since(st.Started)) + " (Paused)"
	case container.Starting:
		return "Starting"
	case container.Stopping:
		return "Stopping, up " + roughly(time.Since(st.Started))
	case container.Stopped:
		s := fmt.Sprintf("Exited (%d) %s", st.ExitCode, ago(st.Ended))
		if st.Reason != "" {
			s += ": " + st.Reason
		}
		return s
	case container.Lost:
		return "Lost: " + st.Reason
	}
	return "Created"
}

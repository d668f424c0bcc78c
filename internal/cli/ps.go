package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/container"
)

type psOptions struct {
	listOptions
	all, noTrunc bool
}

func newPs(a *app) *cobra.Command {
	var o psOptions
	c := &cobra.Command{
		Use:   "ps",
		Short: "List containers",
		Args:  takes(0, 0, ""),
		RunE:  func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *psOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.all, "all", "a", false, "also those that do not run")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "show ids and commands in full")
	o.listOptions.addFlags(f, "show ids only")
}

func (o *psOptions) run(ctx context.Context, a *app) error {
	h, err := a.hostAsUser()
	if err != nil {
		return err
	}
	systems, err := h.Containers().Systems(ctx)
	errs := []error{err}
	var rows []containerRow
	for i := len(systems) - 1; i >= 0; i-- { // the youngest first
		st, err := systems[i].Status(ctx)
		switch {
		case isGone(err):
		case err != nil:
			errs = append(errs, err)
		case o.all || isRunning(st):
			rows = append(rows, o.row(systems[i].Record(), st))
		}
		systems[i].Close()
	}
	return joined(append(errs, list(a.out, o.listOptions, rows)))
}

// containerRow has the names that docker's templates use.
type containerRow struct {
	ID, Image, Command    string
	CreatedAt, RunningFor string
	State, Status, Names  string
}

func (containerRow) header() []string {
	return []string{"CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"}
}

func (r containerRow) cells() []string {
	return []string{r.ID, r.Image, r.Command, r.RunningFor, r.Status, r.Names}
}

func (r containerRow) key() string { return r.ID }

func (o *psOptions) row(rec container.Record, st container.Status) containerRow {
	r := containerRow{
		ID: rec.ID, Image: rec.Spec.Image, CreatedAt: rec.Created.Format(time.RFC3339), RunningFor: ago(rec.Created),
		State: string(st.State), Status: describe(st), Names: rec.Name(),
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
	return r
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

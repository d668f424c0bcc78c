package cli

import (
	"bytes"
	"context"
	"io"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/container"
)

// statsInterval is the time between two samples: shorter ones say less about
// the processor, longer ones have people wait.
const statsInterval = time.Second

type statsOptions struct {
	listOptions
	noStream, all, noTrunc bool
}

func newStats(a *app) *cobra.Command {
	var o statsOptions
	c := &cobra.Command{
		Use:               "stats [flags] [CONTAINER...]",
		Short:             "Show what running containers use",
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
		ValidArgsFunction: a.completeContainers(isRunning),
	}
	o.addFlags(c.Flags())
	return c
}

func (o *statsOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVar(&o.noStream, "no-stream", false, "show it once")
	f.BoolVarP(&o.all, "all", "a", false, "also those that do not run, which use nothing")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "show ids in full")
	o.listOptions.addFlags(f, "")
}

// statsRow has the names that docker's templates use.
type statsRow struct {
	ID        string `title:"CONTAINER ID"`
	Name      string
	Container string
	CPUPerc   string `title:"CPU %"`
	MemUsage  string `title:"MEM USAGE / LIMIT"`
	MemPerc   string `title:"MEM %"`
	NetIO     string `title:"NET I/O"`
	BlockIO   string `title:"BLOCK I/O"`
	PIDs      string `title:"PIDS"`
}

func (statsRow) header() []string {
	return []string{"CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "BLOCK I/O", "PIDS"}
}

func (r statsRow) cells() []string {
	return []string{r.ID, r.Name, r.CPUPerc, r.MemUsage, r.MemPerc, r.BlockIO, r.PIDs}
}

func (r statsRow) key() string { return r.ID }

func (o *statsOptions) run(ctx context.Context, a *app, args []string) error {
	ctx = a.signals.catch(ctx)
	h, err := a.host()
	if err != nil {
		return err
	}
	before, err := o.sample(ctx, h, args)
	if err != nil {
		return err
	}
	live := o.format == "table" && !o.noStream && isTerminal(a.out)
	for {
		select {
		case <-ctx.Done():
			return nil // how this is meant to end
		case <-time.After(statsInterval):
		}
		now, err := o.sample(ctx, h, args)
		if err != nil {
			return err
		}
		if err := o.show(a.out, live, o.rows(before, now)); err != nil || o.noStream {
			return err
		}
		before = now
	}
}

// show prints the rows, in the place of those before on a terminal: in one piece, so that it does not flicker.
func (o *statsOptions) show(to io.Writer, live bool, rows []statsRow) error {
	if !live {
		return list(to, o.listOptions, rows)
	}
	var screen bytes.Buffer
	screen.WriteString("\x1b[H\x1b[2J") // home, clear
	if err := list(&screen, o.listOptions, rows); err != nil {
		return err
	}
	_, err := screen.WriteTo(to)
	return err
}

// measured are the counters of a container at a moment.
type measured struct {
	id, name string
	stats    container.Stats
}

// sample measures the named containers, or all that run.
func (o *statsOptions) sample(ctx context.Context, h *hcs.Host, refs []string) ([]measured, error) {
	systems, err := h.Containers().Systems(ctx)
	if err != nil {
		return nil, err
	}
	if len(refs) > 0 {
		systems = systems[:0]
	}
	for _, ref := range refs {
		s, err := h.Containers().Open(ctx, ref)
		if err != nil {
			return nil, err
		}
		systems = append(systems, s)
	}
	var list []measured
	for _, s := range systems {
		st, err := s.Stats(ctx)
		switch {
		case err == nil:
			list = append(list, measured{s.ID(), s.Name(), st})
		case o.all && len(refs) == 0 && errdefs.IsFailedPrecondition(err):
			list = append(list, measured{id: s.ID(), name: s.Name()})
		case len(refs) > 0 || !errdefs.IsFailedPrecondition(err) && !errdefs.IsNotFound(err):
			return nil, err
		}
	}
	return list, nil
}

func (o *statsOptions) rows(before, now []measured) []statsRow {
	earlier := make(map[string]container.Stats, len(before))
	for _, m := range before {
		earlier[m.id] = m.stats
	}
	rows := make([]statsRow, len(now))
	for i, m := range now {
		rows[i] = newStatsRow(m, earlier[m.id])
		if o.noTrunc {
			rows[i].ID = m.id
		}
	}
	return rows
}

// newStatsRow shows memory as docker does, without what the kernel would drop
// before it refuses any.
func newStatsRow(m measured, before container.Stats) statsRow {
	s := m.stats
	used := s.MemoryUsage - min(s.MemoryCache, s.MemoryUsage)
	r := statsRow{
		ID: container.ShortID(m.id), Container: container.ShortID(m.id), Name: m.name, CPUPerc: "--", MemPerc: "--",
		MemUsage: binarySize(used) + " / --",
		BlockIO:  humanSize(int64(s.ReadBytes)) + " / " + humanSize(int64(s.WriteBytes)), PIDs: strconv.FormatUint(s.Pids, 10),
	}
	var received, sent uint64
	for i := range s.Networks {
		received, sent = received+s.Networks[i].RxBytes, sent+s.Networks[i].TxBytes
	}
	r.NetIO = humanSize(int64(received)) + " / " + humanSize(int64(sent))
	if d := s.Time.Sub(before.Time); !before.Time.IsZero() && d > 0 {
		r.CPUPerc = percent(float64(s.CPU-before.CPU) / float64(d))
	}
	if s.MemoryLimit > 0 {
		r.MemUsage = binarySize(used) + " / " + binarySize(s.MemoryLimit)
		r.MemPerc = percent(float64(used) / float64(s.MemoryLimit))
	}
	return r
}

func percent(f float64) string { return strconv.FormatFloat(100*f, 'f', 2, 64) + "%" }

// isTerminal reports whether a stream of ours is one.
func isTerminal(stream any) bool {
	f, ok := stream.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}

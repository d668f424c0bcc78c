package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/container"
)

type logsOptions struct {
	follow, timestamps bool
	tail, since, until string
}

func newLogs(a *app) *cobra.Command {
	var o logsOptions
	c := &cobra.Command{
		Use:               "logs [flags] CONTAINER",
		Short:             "Show what a container's command has printed",
		Args:              takes(1, 1, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
		ValidArgsFunction: a.completeContainers(isAny),
	}
	o.addFlags(c.Flags())
	return c
}

func (o *logsOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.follow, "follow", "f", false, "go on until the container stops")
	f.StringVarP(&o.tail, "tail", "n", "all", "the last so many `lines`")
	f.StringVar(&o.since, "since", "", "what came after a `time`: 2006-01-02T15:04:05Z, seconds since 1970, or 10m for ten minutes ago")
	f.StringVar(&o.until, "until", "", "what came until a `time`; with --follow it may be one to come, as +10m for in ten minutes")
	f.BoolVarP(&o.timestamps, "timestamps", "t", false, "show when a line was printed")
}

func (o *logsOptions) options(now time.Time) (container.LogOptions, error) {
	var l container.LogOptions
	if o.follow {
		l.Follow = container.Follow
	}
	var err error
	if o.tail != "all" && o.tail != "-1" { // docker's for all
		if l.Tail, err = strconv.Atoi(o.tail); err != nil || l.Tail < 0 {
			return l, usage(fmt.Sprintf("logs: tail %q: give a number of lines or all", o.tail))
		}
	}
	l.Since, err = parseTime(o.since, now)
	return l, err
}

// parseTime reads a moment, or how long ago it was.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		return time.Unix(0, int64(s*1e9)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usage(fmt.Sprintf("time %q: give 2006-01-02T15:04:05Z, seconds since 1970, or 10m for ten minutes ago", text))
}

func (o *logsOptions) run(ctx context.Context, a *app, ref string) error {
	now := time.Now()
	opts, err := o.options(now)
	if err != nil {
		return err
	}
	until, err := parseUntil(o.until, now)
	if err != nil {
		return err
	}
	c, err := a.systemAsUser(ctx, ref)
	if err != nil {
		return err
	}
	defer c.Close()
	if o.tail == "0" && !o.follow {
		return nil
	}
	w := logWriter{out: a.out, err: a.err, stamp: o.timestamps, lineStart: true}
	flush := func() error { return nil }
	if !o.follow { // else every line is to be seen at once
		b := bufio.NewWriterSize(a.out, 64<<10)
		w.out, flush = b, b.Flush
	}
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	for out, err := range c.Logs(ctx, opts) {
		isOver := errors.Is(err, context.DeadlineExceeded) || err == nil && out.Time.After(until)
		if !until.IsZero() && isOver {
			break
		}
		if err == nil {
			err = w.write(out)
		}
		if err != nil {
			return errors.Join(err, flush())
		}
	}
	return flush()
}

// logWriter writes each stream's output to ours of that name.
type logWriter struct {
	out, err  io.Writer
	stamp     bool
	lineStart bool
}

func (l *logWriter) write(o container.Output) error {
	to := l.out
	if o.Stream == container.Stderr {
		to = l.err
	}
	if l.stamp && l.lineStart {
		if _, err := io.WriteString(to, o.Time.Format("2006-01-02T15:04:05.000000000Z07:00")+" "); err != nil {
			return err
		}
	}
	n := len(o.Text)
	l.lineStart = n > 0 && o.Text[n-1] == '\n'
	_, err := to.Write(o.Text)
	return err
}

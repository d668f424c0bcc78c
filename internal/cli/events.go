package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/container"
)

type eventsOptions struct {
	since, until, format string
	filters              []string
}

func newEvents(a *app) *cobra.Command {
	var o eventsOptions
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what happens to containers",
		Long: `Show what happens to containers, whichever program makes it happen, until you interrupt it or until the time of --until.

A line has the time, the kind of the event, the container's id, and what else is known. --since takes a time, or the cursor
of an event: what comes after it is shown. Cursors last; templates and JSON have them.`,
		Example: `  hcs events --since 1h
  hcs events --filter container=web --filter event=exited --format '{{.Name}} {{.Exit.Code}}'`,
		Args: takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *eventsOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.since, "since", "", "begin with what came after a `time`, as logs takes it, or after an event's cursor")
	f.StringVar(&o.until, "until", "", "end at a `time`: what was before, and what is to come until then")
	f.StringVar(&o.format, "format", "", "json (an object a line), or a Go `template`; else lines")
	f.StringArrayVarP(&o.filters, "filter", "f", nil, "only those with `container=NAME`, image=NAME or event=KIND; of several of one kind any")
}

func (o *eventsOptions) run(ctx context.Context, a *app) error {
	now := time.Now()
	since, err := o.cursor(now)
	if err != nil {
		return err
	}
	want, err := o.filter()
	if err != nil {
		return err
	}
	until, err := parseUntil(o.until, now)
	if err != nil {
		return err
	}
	ctx = a.signals.catch(ctx)
	h, err := a.hostAsUser()
	if err != nil {
		return err
	}
	for e, err := range o.events(ctx, h, since, until, now) {
		switch {
		case ctx.Err() != nil:
			return nil // how this is meant to end
		case errors.Is(err, context.DeadlineExceeded) && !until.IsZero(): // its time is up
			return nil
		case err != nil:
			return err
		case !until.IsZero() && e.Time.After(until):
			return nil
		case !want(&e):
			continue
		}
		if err := o.print(a.out, &e); err != nil {
			return err
		}
	}
	return nil
}

func (o *eventsOptions) cursor(now time.Time) (container.Cursor, error) {
	if o.since == "" {
		if o.until != "" {
			return container.Oldest, nil
		}
		return "", nil
	}
	// A cursor has the digits of a time in nanoseconds: no time in seconds is as long.
	if _, err := strconv.ParseUint(o.since, 10, 63); err == nil && (len(o.since) > 15 || o.since == string(container.Oldest)) {
		return container.Cursor(o.since), nil
	}
	t, err := parseTime(o.since, now)
	if err != nil {
		return "", err
	}
	return container.CursorAt(t), nil
}

// parseUntil reads a time, of which one in seconds or as a duration may also be to come.
func parseUntil(text string, now time.Time) (time.Time, error) {
	if rest, ok := strings.CutPrefix(text, "+"); ok {
		d, err := time.ParseDuration(rest)
		if err != nil {
			return time.Time{}, usage(fmt.Sprintf("time %q: give +10m for in ten minutes", text))
		}
		return now.Add(d), nil
	}
	return parseTime(text, now)
}

// eventKinds are those that happen.
var eventKinds = []container.EventKind{
	container.EventCreated, container.EventStarted, container.EventPaused, container.EventResumed, container.EventModified,
	container.EventProcessCreated, container.EventProcessExited, container.EventOOM, container.EventExited, container.EventLost,
	container.EventDeleted, container.EventGap,
}

// kindNamed returns the kind of docker's name for it, or of its own.
func kindNamed(name string) container.EventKind {
	if name == "stop" { // which docker tells before "die"
		return container.EventExited
	}
	for kind, action := range dockerActions {
		if action == name {
			return kind
		}
	}
	return container.EventKind(name)
}

// kindsFor says what to use in place of a name that no event has.
func kindsFor() string {
	list := make([]string, len(eventKinds))
	for i, kind := range eventKinds {
		list[i] = string(kind)
	}
	return "use one of " + strings.Join(list, ", ")
}

// leastID is how many digits of an id a filter needs, so that no short name is taken for one.
const leastID = 6

// filter returns what judges events: of the values that a key has, any will do.
func (o *eventsOptions) filter() (func(*container.Event) bool, error) {
	wanted := make(map[string][]string)
	for _, f := range o.filters {
		key, value, ok := strings.Cut(f, "=")
		switch {
		case !ok || !slices.Contains([]string{"container", "event", "image", "type"}, key):
			return nil, usage(fmt.Sprintf("events: filter %q: use container=NAME, image=NAME or event=KIND", f))
		case key == "event" && !slices.Contains(eventKinds, kindNamed(value)):
			return nil, usage(fmt.Sprintf("events: filter %q: there is no such event: %s", f, kindsFor()))
		case key == "event":
			value = string(kindNamed(value))
		}
		wanted[key] = append(wanted[key], value)
	}
	is := func(key string, match func(string) bool) bool {
		return wanted[key] == nil || slices.ContainsFunc(wanted[key], match)
	}
	return func(e *container.Event) bool {
		return is("container", func(ref string) bool { return ref == e.Name || len(ref) >= leastID && strings.HasPrefix(e.ID, ref) }) &&
			is("event", func(kind string) bool { return kind == string(e.Kind) }) &&
			is("image", func(name string) bool { return sameImage(e.Image, name) }) &&
			is("type", func(what string) bool { return what == "container" }) // docker has others
	}, nil
}

func (o *eventsOptions) print(to io.Writer, e *container.Event) error {
	switch o.format {
	case "":
		_, err := fmt.Fprintln(to, eventLine(e))
		return err
	case "json":
		b, err := json.Marshal(e)
		if err == nil {
			_, err = to.Write(append(b, '\n'))
		}
		return err
	}
	return templated(to, o.format, []eventView{newEventView(e)})
}

// eventLine is made as docker's lines are, but for the words.
func eventLine(e *container.Event) string {
	if e.Kind == container.EventGap {
		return "some events are missing here"
	}
	var more []string
	note := func(key, value string) {
		if value != "" {
			more = append(more, key+"="+value)
		}
	}
	if e.Kind == container.EventProcessExited || e.Kind == container.EventExited {
		note("exitCode", strconv.Itoa(e.Exit.Code))
	}
	note("image", e.Image)
	note("name", e.Name)
	if e.Pid != 0 {
		note("pid", strconv.Itoa(e.Pid))
	}
	note("reason", e.Reason)
	return fmt.Sprintf("%s container %s %s (%s)", e.Time.Format("2006-01-02T15:04:05.000000000Z07:00"), e.Kind, e.ID, strings.Join(more, ", "))
}

// events are those that have happened, where the end has passed, and else also those that do.
func (o *eventsOptions) events(ctx context.Context, h *hcs.Host, since container.Cursor, until, now time.Time) iter.Seq2[container.Event, error] {
	if !until.IsZero() && !until.After(now) {
		return h.Containers().PastEvents(since)
	}
	if until.IsZero() {
		return h.Containers().Events(ctx, since)
	}
	return func(yield func(container.Event, error) bool) {
		ctx, cancel := context.WithDeadline(ctx, until)
		defer cancel()
		h.Containers().Events(ctx, since)(yield)
	}
}

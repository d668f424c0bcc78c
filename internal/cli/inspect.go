package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/container"
)

type inspectOptions struct{ format, kind string }

func newInspect(a *app) *cobra.Command {
	var o inspectOptions
	c := &cobra.Command{
		Use:               "inspect [flags] NAME...",
		Short:             "Show all that is known of containers or images, as JSON",
		Args:              takes(1, -1, "a container or an image"),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
		ValidArgsFunction: a.completeContainers(isAny),
	}
	o.addFlags(c.Flags())
	return c
}

func (o *inspectOptions) addFlags(f *pflag.FlagSet) {
	f.StringVarP(&o.format, "format", "f", "json", "json or a Go `template`")
	f.StringVar(&o.kind, "type", "", "look for a `container` or an image alone; else for either, containers first")
}

func (o *inspectOptions) run(ctx context.Context, a *app, args []string) error {
	find := map[string]func(context.Context, *hcs.Host, string) (any, error){
		"": inspectEither, "container": inspectContainer, "image": inspectImage,
	}[o.kind]
	if find == nil {
		return usage(fmt.Sprintf("inspect: type %q: use container or image", o.kind))
	}
	h, err := a.host()
	if err != nil {
		return err
	}
	var views []any
	var errs []error
	for _, ref := range args {
		v, err := find(ctx, h, ref)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		views = append(views, v)
	}
	return joined(append(errs, inspect(a.out, o.format, views)))
}

func inspectEither(ctx context.Context, h *hcs.Host, ref string) (any, error) {
	v, err := inspectContainer(ctx, h, ref)
	if !errdefs.IsNotFound(err) {
		return v, err
	}
	if v, err := inspectImage(ctx, h, ref); err == nil {
		return v, nil
	}
	return nil, fault(errdefs.ErrNotFound, "no such container or image: %q", ref)
}

func inspectImage(ctx context.Context, h *hcs.Host, ref string) (any, error) {
	img, err := h.Images().Image(ctx, ref)
	if err != nil {
		return nil, err
	}
	return newImageView(img), nil
}

// containerView is what inspect shows of a container: its record, and how it
// is. Templates have the fields by these names, JSON by those of the tags.
type containerView struct {
	container.Record
	dockerView `json:"-"` // for templates alone

	Name   string     `json:"name"`
	Status statusView `json:"status"`
	Writes string     `json:"writes,omitempty"` // the directory that takes what it writes
}

type statusView struct {
	State     container.State `json:"state"`
	Started   time.Time       `json:"started,omitzero"`
	Ended     time.Time       `json:"ended,omitzero"`
	ExitCode  int             `json:"exitCode"`
	Reason    string          `json:"reason,omitempty"`
	Pid       int             `json:"pid,omitempty"`
	ShimPid   int             `json:"shimPid,omitempty"`
	Processes []processView   `json:"processes,omitempty"`
}

type processView struct {
	Pid      int       `json:"pid"`
	Args     []string  `json:"args"`
	Main     bool      `json:"main,omitempty"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
	ExitCode int       `json:"exitCode"`
}

func inspectContainer(ctx context.Context, h *hcs.Host, ref string) (any, error) {
	c, err := h.Containers().Open(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	st, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	r := c.Record()
	r.Spec.Credentials = "" // what is shown gets into logs and reports
	v := containerView{Record: r, dockerView: newDockerView(&r, &st), Name: c.Name(), Status: statusView{
		State: st.State, Started: st.Started, Ended: st.Ended, ExitCode: st.ExitCode, Reason: st.Reason, Pid: st.Pid, ShimPid: st.ShimPid,
	}}
	for _, p := range st.Processes {
		v.Status.Processes = append(v.Status.Processes, processView(p))
	}
	if sc, err := c.Scratch(); err == nil {
		v.Writes = sc.Upper()
	}
	return v, nil
}

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/image"
)

// pullPolicy says when the image of a new container is fetched. Never, if nothing is said: a mistyped name asks nobody.
type pullPolicy string

func (p *pullPolicy) String() string { return string(*p) }

// Type is what a value is called.
func (*pullPolicy) Type() string { return "when" }

// Set takes docker's words.
func (p *pullPolicy) Set(text string) error {
	if !slices.Contains([]string{"missing", "always", "never"}, text) {
		return errors.New("give missing, always, or never")
	}
	*p = pullPolicy(text)
	return nil
}

// make makes the container of the flags, and leaves its id where it is wanted.
func (o *containerOptions) make(ctx context.Context, a *app, h *hcs.Host, spec hcs.Spec) (*container.System, error) {
	if err := o.fetch(ctx, a, h, spec.Image); err != nil {
		return nil, err
	}
	if o.idFile == "" {
		return o.createFrom(ctx, a, h, spec)
	}
	f, err := os.OpenFile(o.idFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("write the container's id: %w", err)
	}
	c, err := o.createFrom(ctx, a, h, spec)
	if err == nil {
		_, err = f.WriteString(c.ID())
	}
	if err = errors.Join(err, f.Close()); err == nil {
		return c, nil
	}
	if c != nil { // whose id nobody would know
		err = errors.Join(err, c.Delete(ctx), c.Close())
	}
	return nil, errors.Join(err, os.Remove(o.idFile))
}

// fetch has the image there as the policy says, if it is one of the store.
func (o *containerOptions) fetch(ctx context.Context, a *app, h *hcs.Host, name string) error {
	if o.pull != "always" && o.pull != "missing" || !isStored(name) {
		return nil
	}
	if o.pull == "missing" {
		if _, err := h.Images().Image(ctx, name); !errdefs.IsNotFound(err) {
			return err
		}
	}
	return o.pullImage(ctx, a, h, name)
}

// isStored reports whether a name is that of an image of the store.
func isStored(name string) bool {
	ref, err := image.ParseRef(name)
	return err == nil && ref.Transport == image.TransportStore
}

// pullImage runs "image pull", whose output is none of the container's.
func (o *containerOptions) pullImage(ctx context.Context, a *app, h *hcs.Host, name string) error {
	program, err := findProgram(registryProgram)
	if err != nil {
		return err
	}
	c := h.Config()
	cmd := exec.CommandContext(ctx, program, "--root", c.Root, "--run", c.Run, "--log-level", a.logLevel, "image", "pull", "--quiet="+strconv.FormatBool(o.quiet), name)
	cmd.Stdout, cmd.Stderr = a.err, a.err
	if o.quiet {
		cmd.Stdout = nil
	}
	err = cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); ended && ctx.Err() == nil {
		return exitStatus(statusFailed) // it has said why
	}
	return cmp.Or(context.Cause(ctx), err)
}

// createFrom makes the container, or says how to come by its image.
func (o *containerOptions) createFrom(ctx context.Context, a *app, h *hcs.Host, spec hcs.Spec) (*container.System, error) {
	end := a.tracer.span("create container", text("container.image.name", spec.Image))
	c, err := h.Create(ctx, spec)
	if errdefs.IsNotFound(err) && isStored(spec.Image) {
		if _, ierr := h.Images().Image(ctx, spec.Image); errdefs.IsNotFound(ierr) {
			err = fmt.Errorf("%w: get it with hcs pull, or --pull missing", err)
		}
	}
	return c, end(err)
}

package hcsshim

import (
	"context"
	"encoding/json"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/hcserror"
	compute "github.com/hostcompute/hcs/container"
)

// A resource is something that a running container can be given and deprived of.
type resource interface {
	add(*compute.Change) error
	remove(*compute.Change) error
}

// resources are those that there are, by their names in the schema
// (https://learn.microsoft.com/virtualization/api/hcs/schemareference). Their settings are those of the configuration.
var resources = map[ResourceType]func() resource{
	"MappedDirectory":   func() resource { return new(MappedDir) },
	"MappedPipe":        func() resource { return new(MappedPipe) },
	"MappedVirtualDisk": func() resource { return new(MappedVirtualDisk) },
	Network:             func() resource { return new(endpoint) },
}

// endpoint is the id of a network endpoint.
type endpoint string

func (e *endpoint) add(ch *compute.Change) error {
	ch.AddEndpoints = []string{string(*e)}
	return nil
}

func (e *endpoint) remove(ch *compute.Change) error {
	ch.RemoveEndpoints = []string{string(*e)}
	return nil
}

func (d *MappedDir) add(ch *compute.Change) error {
	m, err := d.mount()
	ch.AddMounts = []compute.Mount{m}
	return err
}

func (d *MappedDir) remove(ch *compute.Change) error {
	ch.RemoveMounts = []string{d.ContainerPath}
	return nil
}

func (p *MappedPipe) add(ch *compute.Change) error {
	m, err := p.mount()
	ch.AddMounts = []compute.Mount{m}
	return err
}

func (p *MappedPipe) remove(ch *compute.Change) error {
	target, err := p.target()
	ch.RemoveMounts = []string{target}
	return err
}

func (d *MappedVirtualDisk) add(ch *compute.Change) error {
	m, err := d.disk()
	ch.AddDisks = []compute.Disk{m}
	return err
}

func (d *MappedVirtualDisk) remove(ch *compute.Change) error {
	ch.RemoveDisks = []string{d.ContainerPath}
	return nil
}

func (c *container) Modify(config *ResourceModificationRequestResponse) error {
	return c.call("Modify", func(ctx context.Context) error {
		if config == nil {
			return coded(hcserror.InvalidParameter, "there is no request")
		}
		if err := c.expect(ctx, compute.Running, compute.Paused); err != nil {
			return err
		}
		change, err := config.change()
		if err != nil {
			return err
		}
		err = c.system.Modify(ctx, change)
		if errdefs.IsNotFound(err) && config.Request == Remove {
			return &hcserror.Coded{Code: ErrElementNotFound, Err: err}
		}
		return err
	})
}

// change returns what is to be different.
func (r *ResourceModificationRequestResponse) change() (ch compute.Change, _ error) {
	blank, ok := resources[r.Resource]
	if !ok {
		return ch, coded(ErrNotSupported, "modify ResourceType %q: not supported", r.Resource)
	}
	which := blank()
	settings, err := json.Marshal(r.Data)
	if err == nil {
		err = decode(settings, which)
	}
	if err != nil {
		return ch, coded(ErrVmcomputeInvalidJSON, "read Settings: %w", err)
	}
	switch r.Request {
	case Add:
		err = which.add(&ch)
	case Remove:
		err = which.remove(&ch)
	default:
		err = coded(hcserror.InvalidParameter, "RequestType %q: use %s or %s", r.Request, Add, Remove)
	}
	return ch, err
}

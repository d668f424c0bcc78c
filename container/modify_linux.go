package container

import (
	"context"
	"encoding/json"
	"path"
	"reflect"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/userns"
	"github.com/hostcompute/hcs/internal/wire"
)

// wireChange returns what the shim is to do to make one of the other.
func (s *System) wireChange(was, is *Record) (*wire.Change, error) {
	from, err := s.limitsBundle(was, is)
	if err != nil {
		return nil, err
	}
	to, err := s.limitsBundle(is, was)
	if err != nil {
		return nil, err
	}
	from.disks, _ = s.limitedDisks(&was.Spec) // those that are not to be found any more have no limits any more
	if to.disks, err = s.limitedDisks(&is.Spec); err != nil {
		return nil, err
	}
	ch := new(wire.Change)
	limits := wire.LimitsChange{From: from.nativeLimits(from.resources()), To: to.nativeLimits(to.resources())}
	if !reflect.DeepEqual(limits.From, limits.To) {
		ch.Limits = &limits
	}
	ch.Detach = goneFrom(from.modifiable(), to.modifiable())
	for _, m := range newIn(from.modifiable(), to.modifiable()) {
		mounts, err := nativeMounts(&m, nil)
		if err != nil {
			return nil, err
		}
		mounts[0].Target = path.Clean(m.Destination)
		ch.Attach = append(ch.Attach, mounts...)
		if to.isChosen(m.Destination) && !is.IDs.isHost() {
			ch.Mapped = append(ch.Mapped, mounts[0].Target)
		}
	}
	for _, d := range is.Spec.Disks {
		if slices.Contains(was.Spec.Disks, d) {
			continue
		}
		// What is to be removed stays until all that is to be added is there.
		if j := slices.IndexFunc(was.Spec.Disks, func(o Disk) bool { return d.excludes(&o) }); j >= 0 {
			return nil, fault(errdefs.ErrFailedPrecondition, "add a disk at %s: its image is at %s, and one of both is written to: remove that first",
				d.target(), was.Spec.Disks[j].target())
		}
		disk, err := d.wire(d.target())
		if err != nil {
			return nil, err
		}
		ch.Disks = append(ch.Disks, disk)
	}
	for _, d := range was.Spec.Disks {
		if !slices.Contains(is.Spec.Disks, d) {
			ch.Detach = append(ch.Detach, d.target())
		}
	}
	ch.Remove, ch.Make = from.nodesNotIn(to), to.nodesNotIn(from)
	return ch, nil
}

// limitsBundle is a bundle as far as limits, mounts and devices go. The disk
// is found if this record or the other has limits for it: they are to be
// lifted, too.
func (s *System) limitsBundle(r, other *Record) (*bundle, error) {
	b := &bundle{
		record: r, cgroup: s.service.cgroup(r.ID), hybrid: sys.HasV1Cgroups(),
		rootless: !userns.IsInitial(), user: !userns.IsInitial() || !r.IDs.isHost(),
		devices: make([]specs.LinuxDevice, len(r.Spec.Devices)),
	}
	var err error
	for i := range r.Spec.Devices {
		if b.devices[i], err = r.Spec.Devices[i].oci(); err != nil {
			return nil, err
		}
	}
	if b.disk, err = s.limitedDisk(&r.Spec); err == nil && b.disk == "" {
		b.disk, err = s.limitedDisk(&other.Spec)
	}
	return b, err
}

// limitedDisk returns the disk that the spec limits the use of, or nothing.
func (s *System) limitedDisk(spec *Spec) (string, error) {
	if spec.Resources.IOPS == 0 && spec.Resources.Bandwidth == 0 {
		return "", nil
	}
	if spec.WriteInPlace {
		return diskOf(spec.RootDir)
	}
	sc, err := s.Scratch()
	if err != nil {
		return "", err
	}
	return diskOf(sc.Upper())
}

// modifiable are the mounts that Modify adds and removes, but those of disks.
func (b *bundle) modifiable() []specs.Mount {
	var list []specs.Mount
	for i := range b.record.Spec.Mounts {
		list = append(list, b.record.Spec.Mounts[i].oci())
	}
	return append(list, b.deviceMounts()...)
}

func sameMount(a specs.Mount) func(specs.Mount) bool {
	return func(b specs.Mount) bool {
		return a.Destination == b.Destination && a.Type == b.Type && a.Source == b.Source && slices.Equal(a.Options, b.Options)
	}
}

func goneFrom(was, is []specs.Mount) []string {
	var targets []string
	for _, m := range newIn(is, was) {
		targets = append(targets, path.Clean(m.Destination))
	}
	return targets
}

func newIn(was, is []specs.Mount) []specs.Mount {
	return slices.DeleteFunc(slices.Clone(is), func(m specs.Mount) bool { return slices.ContainsFunc(was, sameMount(m)) })
}

// nodesNotIn returns the device nodes that the other has not.
func (b *bundle) nodesNotIn(other *bundle) []wire.DeviceNode {
	if b.user {
		return nil
	}
	var list []wire.DeviceNode
	for i := range b.devices {
		n := deviceNode(&b.devices[i])
		if !slices.ContainsFunc(other.devices, func(d specs.LinuxDevice) bool { return deviceNode(&d) == n }) {
			list = append(list, n)
		}
	}
	return list
}

// sendChange has the shim make the change.
func (s *System) sendChange(ctx context.Context, ch *wire.Change) error {
	body, err := json.Marshal(ch)
	if err != nil {
		return err
	}
	_, err = s.call(ctx, wire.Message{Type: wire.Modify, Body: body})
	return err
}

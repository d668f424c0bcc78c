package container

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
)

// stored is something of a system's that is on a disk.
type stored struct {
	what    string
	ioLimit // that it is to have
}

// limitedDisks returns the limits that mounts have, but those that the root has
// too. The kernel limits a system's use of a disk, and of nothing less: so all
// that the system has there must have the same limits.
func (s *System) limitedDisks(spec *Spec) ([]ioLimit, error) {
	if !slices.ContainsFunc(spec.Mounts, func(m Mount) bool { return m.isLimited() }) {
		return nil, nil
	}
	all, err := s.stored(spec)
	if err != nil {
		return nil, err
	}
	disk, err := s.limitedDisk(spec)
	if err != nil {
		return nil, err
	}
	done := []ioLimit{{disk, spec.Resources.IOPS, spec.Resources.Bandwidth}}
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if !m.isLimited() {
			continue
		}
		disk, err := diskOf(m.Source)
		l := ioLimit{disk, m.IOPS, m.Bandwidth}
		if err == nil {
			err = l.holdsFor(all)
		}
		if err != nil {
			return nil, fmt.Errorf("mount at %s: %w", m.Target, err)
		}
		if !slices.Contains(done, l) {
			done = append(done, l)
		}
	}
	return done[1:], nil
}

// holdsFor reports what is on the same disk and has other limits.
func (l ioLimit) holdsFor(all []stored) error {
	for _, o := range all {
		if o.disk == l.disk && o.ioLimit != l {
			return fault(errdefs.ErrNotImplemented, "limit of %d reads and writes and %d bytes a second: %s is on the same disk, %s, without the same limits",
				l.iops, l.bandwidth, o.what, l.disk)
		}
	}
	return nil
}

// stored lists what the system has on disks. What is on none has no limits.
func (s *System) stored(spec *Spec) ([]stored, error) {
	now := &System{service: s.service, record: s.record}
	now.record.Spec = *spec
	root, err := now.root()
	if err != nil {
		return nil, err
	}
	var all []stored
	add := func(what, dir string, iops, bandwidth int64) {
		if disk, err := diskOf(dir); err == nil {
			all = append(all, stored{what, ioLimit{disk, iops, bandwidth}})
		}
	}
	for _, dir := range slices.Concat(root.Lower, []string{root.Upper, root.Dir}) {
		add("its root", dir, spec.Resources.IOPS, spec.Resources.Bandwidth)
	}
	for i := range spec.Mounts {
		if m := &spec.Mounts[i]; m.Type != "tmpfs" {
			add("what is mounted at "+m.Target, m.Source, m.IOPS, m.Bandwidth)
		}
	}
	for i := range spec.Disks {
		add("disk image "+spec.Disks[i].Source, spec.Disks[i].Source, 0, 0)
	}
	return all, nil
}

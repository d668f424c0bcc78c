package layer

import (
	"slices"
	"time"

	"github.com/hostcompute/hcs/ntfs"
)

// NTOrder makes a Windows layer of entries that come from elsewhere than a
// Reader: it judges them as a Reader would, and makes up the directories that
// are missing. What a tar stream cannot tell of a file (reparse points that
// are no links, object IDs…) is let through.
type NTOrder struct {
	n       *ntReader
	limits  Limits
	entries int64
	bytes   int64
}

// NewNTOrder returns an NTOrder. Of the options Limits, Strict and Warn count.
func NewNTOrder(o ReadOptions) *NTOrder {
	r := &NTOrder{n: newNTReader(o), limits: o.Limits.effective()}
	r.n.limits, r.n.entries = &r.limits, &r.entries
	return r
}

// Place judges the next entry and returns the directories that have to come
// before it and are Implied, the outermost first. It may change the name of an
// alternate stream's owner to how that is spelled. An error is an
// [*EntryError].
func (o *NTOrder) Place(e *Entry) ([]*Entry, error) {
	o.n.name = e.Name
	if err := o.judge(e); err != nil {
		return nil, &EntryError{"read", e.Name, err}
	}
	if err := o.n.place(e); err != nil {
		return nil, &EntryError{"read", e.Name, err}
	}
	return o.implied(), nil
}

func (o *NTOrder) judge(e *Entry) error {
	if e.NT == nil {
		return invalid("it is of another system's layer")
	}
	if _, err := o.limits.cleanName(e.Name); err != nil {
		return err
	}
	if err := check(e); err != nil {
		return err
	}
	if o.entries++; o.entries > o.limits.Entries {
		return exceeded("Entries", o.limits.Entries)
	}
	if e.Size > o.limits.EntryBytes {
		return exceeded("EntryBytes", o.limits.EntryBytes)
	}
	if o.bytes += e.Size; o.bytes > o.limits.Bytes {
		return exceeded("Bytes", o.limits.Bytes)
	}
	for _, t := range []*time.Time{&e.ModTime, &e.AccessTime, &e.ChangeTime, &e.NT.CreationTime} {
		if err := o.n.clamp(t); err != nil {
			return err
		}
	}
	return o.descriptor(e.NT.SecurityDescriptor)
}

func (o *NTOrder) descriptor(sd []byte) error {
	if sd == nil {
		return nil
	}
	if len(sd) > o.limits.XattrBytes {
		return exceeded("XattrBytes", o.limits.XattrBytes)
	}
	if _, err := ntfs.ParseSecurityDescriptor(sd); err != nil {
		return invalid("no security descriptor: %w", err)
	}
	return nil
}

// Rest returns, at the end of the layer, what every layer has and this one has
// not: Implied directories.
func (o *NTOrder) Rest() ([]*Entry, error) {
	if err := o.n.finish(); err != nil {
		return nil, &EntryError{"read", o.n.name, err}
	}
	return o.implied(), nil
}

func (o *NTOrder) implied() []*Entry {
	var dirs []*Entry
	for _, s := range o.n.queue {
		dirs = append(dirs, &s.e)
	}
	o.n.queue = slices.Delete(o.n.queue, 0, len(o.n.queue))
	return dirs
}

package disk

import (
	"fmt"

	"github.com/Microsoft/go-winio/pkg/guid"
)

// An entry with this many pages takes 121 pages, less than half of the smallest log: entries go to its halves in turn, so that
// the one before stays whole while one is written.
const maxLoggedPages = 120

// What one change of a table may make dirty at once, besides resizing: room for it is made before.
const reservePages = 4

// makeRoom brings changed pages into the file before there are too many of them for one log entry.
func (v *vhdx) makeRoom() error {
	if len(v.tables.dirty) < maxLoggedPages-reservePages-2*vhdxStructure/vhdxPage {
		return nil
	}
	return v.commit()
}

// commit brings all changed pages into the file, at once as far as anybody who opens it can tell.
func (v *vhdx) commit() error {
	changed := v.tables.changed()
	if len(changed) == 0 {
		return nil
	}
	if v.state == vhdxNew {
		return v.tables.write(v.w)
	}
	if err := v.extend(); err != nil {
		return err
	}
	// What the tables are about to refer to, and what the entry before has put in place.
	if err := v.w.Sync(); err != nil {
		return err
	}
	if err := v.log(changed); err != nil {
		return fmt.Errorf("write VHDX log: %w", err)
	}
	return v.tables.write(v.w)
}

// log writes the changed pages as one entry.
func (v *vhdx) log(changed []int64) error {
	id := v.header.log
	if id == (guid.GUID{}) {
		var err error
		if id, err = newGUID(v.rand, guid.GUID{}); err != nil {
			return err
		}
		v.logSeq = 1
	}
	changes := make([]change, len(changed))
	for i, off := range changed {
		changes[i] = change{off: off, n: vhdxPage, data: v.tables.dirty[off]}
	}
	at := int64(v.logSeq%2) * int64(v.header.logLength) / 2
	entry := encodeLogEntry(id, v.logSeq, at, v.eof, changes)
	if err := v.put(entry, v.header.logOffset+at); err != nil {
		return err
	}
	if err := v.w.Sync(); err != nil {
		return err
	}
	v.logSeq++
	if v.header.log == id {
		return nil
	}
	h := v.header
	h.log = id
	return v.putHeader(h)
}

// extend makes the file as long as its blocks say.
func (v *vhdx) extend() error {
	if err := v.w.Truncate(v.eof); err != nil {
		return fmt.Errorf("extend image to %d bytes: %w", v.eof, err)
	}
	return nil
}

func (v *vhdx) flush(how flushing) error {
	if v.w == nil || v.state == vhdxClosed {
		return nil
	}
	if v.state == vhdxNew {
		return v.finish(how)
	}
	if err := v.commit(); err != nil {
		return err
	}
	if err := v.w.Sync(); err != nil {
		return err
	}
	if v.header.log == (guid.GUID{}) {
		return nil
	}
	h := v.header
	h.log = guid.GUID{}
	return v.putHeader(h) // now all is in place
}

// finish makes an image of a file that was none until now: the headers come last.
func (v *vhdx) finish(how flushing) error {
	if err := v.commit(); err != nil {
		return err
	}
	if err := v.extend(); err != nil {
		return err
	}
	if how == settle {
		if err := v.w.Sync(); err != nil {
			return err
		}
	}
	for range 2 {
		if err := v.putHeader(v.header); err != nil {
			return err
		}
	}
	if how == settle {
		v.state = vhdxOpen
		return v.w.Sync()
	}
	return nil
}

package rootfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// ntStreams collects the alternate streams of a layer, which come behind what they belong to, and adds them to the metadata of
// that at the end.
type ntStreams struct {
	dir    string // where metadata is spilled
	spool  *os.File
	size   int64
	owners []string // by name as spelled, in their order
	of     map[string][]spooledStream
}

type spooledStream struct {
	ntfs.Stream
	offset int64 // in the spool
}

const ntSpool = ".streams" // in the directory of spilled metadata, while a layer is imported

// add copies a stream's content, which f reads through the reader it is given.
func (s *ntStreams) add(owner string, stream ntfs.Stream, content io.Reader, f func(io.Reader) error) error {
	if s.spool == nil {
		var err error
		if s.spool, err = os.OpenFile(filepath.Join(s.dir, ntSpool), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
			return err
		}
		s.of = make(map[string][]spooledStream)
	}
	if err := f(io.TeeReader(io.LimitReader(content, stream.Size), s.spool)); err != nil {
		return err
	}
	if _, ok := s.of[owner]; !ok {
		s.owners = append(s.owners, owner)
	}
	s.of[owner] = append(slices.DeleteFunc(s.of[owner], func(x spooledStream) bool { return ntfs.EqualFold(x.Name, stream.Name) }),
		spooledStream{stream, s.size})
	s.size += stream.Size
	return nil
}

// end rewrites the metadata of all that has streams.
func (s *ntStreams) end(root *inroot.Root, attr string) error {
	for _, owner := range s.owners {
		if err := s.rewrite(root, attr, owner); err != nil {
			return &layer.EntryError{Op: "store streams of", Name: owner, Err: err}
		}
	}
	return nil
}

func (s *ntStreams) rewrite(root *inroot.Root, attr, owner string) error {
	e, gone, err := ntObject(root, attr, owner)
	if err != nil || gone {
		return err
	}
	value, err := s.encode(e, s.of[owner])
	if err != nil {
		return err
	}
	dir, last, err := root.OpenParent(owner)
	if err != nil {
		return err
	}
	return errors.Join(dir.SetXattr(last, attr, string(value)), dir.Close())
}

// encode returns the attribute of e with its streams.
func (s *ntStreams) encode(e *layer.Entry, streams []spooledStream) ([]byte, error) {
	var size int64
	for _, x := range streams {
		size += x.Size
	}
	if size <= ntInline {
		var b bytes.Buffer
		if err := s.write(&b, e, streams); err != nil {
			return nil, err
		}
		if b.Len() <= ntInline {
			return appendNTAttr(nil, e, 0, b.Bytes())
		}
	}
	sum, err := spillTo(s.dir, func(w io.Writer) error { return s.write(w, e, streams) })
	if err != nil {
		return nil, fmt.Errorf("store Windows metadata: %w", err)
	}
	return appendNTAttr(nil, e, ntSpilled, sum[:])
}

func (s *ntStreams) write(to io.Writer, e *layer.Entry, streams []spooledStream) error {
	w := ntfs.NewBackupWriter(to)
	if err := w.WriteMeta(e.NT); err != nil {
		return err
	}
	for _, x := range streams {
		if err := w.WriteHeader(ntfs.AlternateHeader(x.Name, x.Size)); err != nil {
			return err
		}
		if _, err := io.Copy(w, io.NewSectionReader(s.spool, x.offset, x.Size)); err != nil {
			return err
		}
	}
	return w.Close()
}

// spillTo stores in dir what f writes, under its digest.
func spillTo(dir string, f func(io.Writer) error) (sum [sha256.Size]byte, err error) {
	file, err := sys.CreateNew(dir, ".spill-")
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	if err := f(io.MultiWriter(file, h)); err != nil {
		return sum, errors.Join(err, file.Discard())
	}
	h.Sum(sum[:0])
	return sum, file.Publish(filepath.Join(dir, hex.EncodeToString(sum[:])))
}

// close removes what was collected.
func (s *ntStreams) close() error {
	if s.spool == nil {
		return nil
	}
	return errors.Join(s.spool.Close(), os.Remove(s.spool.Name()))
}

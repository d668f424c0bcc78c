package transfer

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/winio"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// Writer makes entries of files, links and removals. A file's backup stream is kept until the next one starts, because an
// entry says beforehand what the stream tells at its end. A Writer is for one goroutine.
type Writer struct {
	emit    Emit
	names   map[string]bool // in upper case: Windows creates no name twice
	parts   map[layer.Part]bool
	current *layer.Entry
	spool   spool
	closed  bool
	err     error // stays
}

// NewWriter returns a Writer that gives entries to emit. Content is an io.Reader that is valid during the call. dir is where
// large files are kept meanwhile.
func NewWriter(emit Emit, dir string) *Writer {
	return &Writer{emit: emit, names: make(map[string]bool), parts: make(map[layer.Part]bool), spool: spool{dir: dir}}
}

// Add starts a file or directory, by its name with backslashes, whose backup stream Write takes.
func (w *Writer) Add(name string, info *winio.FileBasicInfo) error {
	if info == nil {
		return w.fail("add", name, fmt.Errorf("there are no times and attributes: %w", errdefs.ErrInvalidArgument))
	}
	e, err := w.start("add", name)
	if err != nil {
		return err
	}
	if err := w.claim(e.Name); err != nil {
		return w.fail("add", name, err)
	}
	e.NT.Attributes = ntfs.Attributes(info.FileAttributes)
	e.NT.CreationTime = info.CreationTime.Time()
	e.ModTime, e.AccessTime, e.ChangeTime = info.LastWriteTime.Time(), info.LastAccessTime.Time(), info.ChangeTime.Time()
	if e.NT.Attributes&ntfs.AttrDirectory != 0 {
		e.Kind = layer.Dir
	}
	w.current = e
	return nil
}

// AddLink adds another name of a file of this layer or one below it.
func (w *Writer) AddLink(name, target string) error {
	e, err := w.start("add link", name)
	if err != nil {
		return err
	}
	e.Kind = layer.Hardlink
	if e.Link, err = cleanName(target); err != nil {
		return w.fail("add link", name, fmt.Errorf("to %q: %w", target, err))
	}
	if !linkable(e.Name) || !linkable(e.Link) {
		return w.fail("add link", name, fmt.Errorf("invalid hard link in layer: only files of Files and of UtilityVM have links: %w", errdefs.ErrInvalidArgument))
	}
	if err := w.claim(e.Name); err != nil {
		return w.fail("add link", name, err)
	}
	return w.give("add link", e, nil)
}

// Remove removes what lower layers have by that name.
func (w *Writer) Remove(name string) error {
	e, err := w.start("remove", name)
	if err != nil {
		return err
	}
	e.Kind = layer.Whiteout
	if !linkable(e.Name) {
		return w.fail("remove", name, fmt.Errorf("invalid tombstone: %w", errdefs.ErrInvalidArgument))
	}
	return w.give("remove", e, nil)
}

// linkable reports whether a name is in a part of the layer where files may be removed and linked.
func linkable(name string) bool {
	return strings.HasPrefix(name, "Files/") || strings.HasPrefix(name, "UtilityVM/Files/")
}

// Write takes a piece of the backup stream of what Add started.
func (w *Writer) Write(p []byte) (int, error) {
	switch {
	case w.closed:
		return 0, fmt.Errorf("write layer: %w", errClosed)
	case w.err != nil:
		return 0, w.err
	case w.current == nil:
		return 0, w.fail("write", "", fmt.Errorf("there is no file to write to: %w", errdefs.ErrFailedPrecondition))
	}
	n, err := w.spool.Write(p)
	if err != nil {
		return n, w.fail("write", w.current.Name, err)
	}
	return n, nil
}

// Close gives the last file to emit and releases what is kept. Called again, it does nothing.
func (w *Writer) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	err := w.err
	if err == nil {
		err = w.finish()
	}
	return errors.Join(err, w.spool.close())
}

// start ends the current file and returns the entry of another name.
func (w *Writer) start(op, name string) (*layer.Entry, error) {
	if w.closed {
		return nil, fmt.Errorf("write layer: %w", errClosed)
	}
	if w.err != nil {
		return nil, w.err
	}
	if err := w.finish(); err != nil {
		return nil, w.fail(op, name, err)
	}
	clean, err := cleanName(name)
	if err != nil {
		return nil, w.fail(op, name, err)
	}
	return &layer.Entry{Name: clean, NT: &ntfs.Meta{}}, nil
}

// claim takes a name for this layer, and the part that it lies in.
func (w *Writer) claim(name string) error {
	part, rest := layer.SplitPart(name)
	if part == layer.UtilityVMPart && rest != "." {
		if !w.parts[part] {
			return fmt.Errorf("missing UtilityVM directory: %w", errdefs.ErrInvalidArgument)
		}
		if rest != "Files" && !strings.HasPrefix(rest, "Files/") {
			return fmt.Errorf("invalid UtilityVM layer: only Files can be in it: %w", errdefs.ErrInvalidArgument)
		}
	}
	key := ntfs.Upcase(name)
	if w.names[key] {
		return fmt.Errorf("the layer has it already: %w", errdefs.ErrAlreadyExists)
	}
	w.names[key], w.parts[part] = true, true
	return nil
}

// cleanName returns a name with slashes. What it is not is as Windows' own tools refuse it: absolute, upwards, or of a stream.
func cleanName(name string) (string, error) {
	clean := strings.ReplaceAll(name, `\`, "/")
	for part := range strings.SplitSeq(clean, "/") {
		if part == "" || part == "." || part == ".." {
			return "", fmt.Errorf("the name is not relative and clean: %w", errdefs.ErrInvalidArgument)
		}
		if err := ntfs.CheckName(part); err != nil {
			return "", fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	return clean, nil
}

func (w *Writer) fail(op, name string, err error) error {
	w.err = fmt.Errorf("%s %q: %w", op, name, err)
	return w.err
}

func (w *Writer) give(op string, e *layer.Entry, content io.Reader) error {
	if err := w.emit(e, content); err != nil {
		return w.fail(op, e.Name, err)
	}
	return nil
}

// finish gives the current file and its alternate streams to emit.
func (w *Writer) finish() error {
	e := w.current
	if e == nil {
		return nil
	}
	w.current = nil
	if err := w.spool.flush(); err != nil {
		return err
	}
	err := layer.ReadBackup(e, w.spool.reader(), func(e *layer.Entry, content io.Reader) error { return w.give("write", e, content) })
	if err != nil {
		return err
	}
	w.spool.reset()
	return nil
}

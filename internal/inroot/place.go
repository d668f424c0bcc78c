package inroot

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/hostcompute/hcs/internal/sys"
)

// Locate opens what name leads to, whatever it is, without touching it: the
// file can be mounted on and asked what it is. Symbolic links are followed
// within the root.
func (r *Root) Locate(name string) (*os.File, error) {
	fd, err := r.open(name, sys.OpenPathFollow)
	if err != nil {
		return nil, pathError("find", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// LocateOrMakeDir is Locate, but makes a directory, and those on the way to it,
// where there is nothing.
func (r *Root) LocateOrMakeDir(name string, mode uint32) (*os.File, error) {
	f, err := r.Locate(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	d, err := r.MkdirAll(name, mode)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(d.fd), name), nil
}

// LocateOrMakeFile is Locate, but makes an empty file, and the directories on
// the way to it, where there is nothing. A link to nothing has the file made
// that it leads to.
func (r *Root) LocateOrMakeFile(name string, mode uint32) (*os.File, error) {
	for range maxLinks {
		f, err := r.Locate(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		link, err := r.makeFile(name, mode)
		if err != nil {
			return nil, err
		}
		if link != "" {
			name = link
		}
	}
	return nil, pathError("make file", name, sys.ErrTooManyLinks)
}

// makeFile makes an empty file. If the name is that of a link, it returns where
// that leads.
func (r *Root) makeFile(name string, mode uint32) (link string, err error) {
	parent, last, err := splitLast(name)
	if err != nil {
		return "", err
	}
	d, err := r.MkdirAll(parent, 0o755)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	f, err := d.Create(last, mode)
	if err == nil {
		return "", f.Close()
	}
	if !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	to, err := d.Readlink(last)
	switch {
	case err != nil: // no link: it came meanwhile
		return "", nil
	case strings.HasPrefix(to, "/"):
		return to, nil
	}
	return parent + "/" + to, nil
}

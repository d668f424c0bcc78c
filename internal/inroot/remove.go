package inroot

import (
	"errors"
	"io/fs"
	"os"
	"strconv"

	"github.com/hostcompute/hcs/internal/sys"
)

// maxOpen is how many directories a removal holds open. What lies deeper is moved up first: whoever made the tree may have
// made it deeper than there are descriptors.
const maxOpen = 64

// RemoveAll removes name and everything below it. Nothing of that name is no error.
func (d *Dir) RemoveAll(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	done, err := unlink(d.fd, name)
	if done || err != nil {
		return pathError("remove", name, err)
	}
	top, err := openEmptiable(d.fd, name)
	if err != nil {
		return pathError("remove", name, missingIsFine(err))
	}
	r := remover{top: top}
	err = r.clear(top, 1)
	for err == nil && r.moved > 0 { // what was moved up may again be deep
		r.moved = 0
		err = r.clear(top, 1)
	}
	err = errors.Join(err, sys.Close(top))
	if err == nil {
		err = missingIsFine(sys.RmdirAt(d.fd, name))
	}
	return pathError("remove", name, err)
}

// remover empties the directory top.
type remover struct {
	top   int
	moved int // directories moved up into top in this round
	names int // makes their new names unique
}

// clear removes everything in the directory dir, which is open as the depth-th from the top.
func (r *remover) clear(dir, depth int) error {
	fd, err := sys.OpenAt(dir, ".", sys.OpenDirectory, 0)
	if err != nil {
		return err
	}
	names, err := sys.ReadDirNames(fd)
	if err := errors.Join(err, sys.Close(fd)); err != nil {
		return err
	}
	for _, name := range names {
		if err := r.remove(dir, name, depth); err != nil {
			return &fs.PathError{Op: "remove", Path: name, Err: err}
		}
	}
	return nil
}

func (r *remover) remove(dir int, name string, depth int) error {
	done, err := unlink(dir, name)
	if done || err != nil {
		return err
	}
	if err := sys.RmdirAt(dir, name); !errors.Is(err, sys.ErrNotEmpty) {
		return missingIsFine(err)
	}
	if depth >= maxOpen {
		return r.moveUp(dir, name)
	}
	sub, err := openEmptiable(dir, name)
	if err != nil {
		return missingIsFine(err)
	}
	if err := errors.Join(r.clear(sub, depth+1), sys.Close(sub)); err != nil {
		return err
	}
	return missingIsFine(sys.RmdirAt(dir, name))
}

// openEmptiable opens a directory that is to be emptied. Root needs no permission for that; others may have made a
// directory of their own which they may not change.
func openEmptiable(dir int, name string) (int, error) {
	if os.Geteuid() != 0 {
		if err := sys.ChmodAt(dir, name, 0o700); err != nil {
			return -1, err
		}
	}
	return sys.OpenAt(dir, name, sys.OpenDirectory, 0)
}

// moveUp moves a directory into top, under a name that is free there.
func (r *remover) moveUp(dir int, name string) error {
	for {
		r.names++
		err := sys.RenameNoReplaceAt(dir, name, r.top, ".removed-"+strconv.Itoa(r.names))
		if !errors.Is(err, fs.ErrExist) {
			r.moved++
			return missingIsFine(err)
		}
	}
}

// unlink removes what is no directory. done is false for a directory, which is still there.
func unlink(dir int, name string) (done bool, err error) {
	err = sys.UnlinkAt(dir, name)
	switch {
	case err == nil || errors.Is(err, fs.ErrNotExist):
		return true, nil
	case errors.Is(err, sys.ErrIsDir):
		return false, nil
	}
	st, statErr := sys.StatAt(dir, name)
	if statErr == nil && st.IsDir() { // EPERM is what POSIX says for a directory
		return false, nil
	}
	return false, err
}

func missingIsFine(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

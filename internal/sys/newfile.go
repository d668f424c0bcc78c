package sys

import (
	"errors"
	"io/fs"
	"os"
)

// NewFile is a file that is written before it gets its name. Where the file system knows files without name a process that is
// killed before Publish leaves nothing.
type NewFile struct {
	*os.File
	temp string // its name for the time being; empty if it has none
}

// CreateNew makes a file that is to be one of dir's. Where there has to be a name for the time being, it is pattern with a
// random string, as os.CreateTemp has it. The caller calls Publish or Discard.
func CreateNew(dir, pattern string) (*NewFile, error) {
	if f, err := createUnnamed(dir); err == nil {
		return &NewFile{File: f}, nil
	}
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	return &NewFile{File: f, temp: f.Name()}, nil
}

// Publish closes the file and gives it a path in its directory. What has that name already may stay in its place: so it must
// be a name for content that is the same.
func (f *NewFile) Publish(path string) error {
	if f.temp != "" {
		err := f.Close()
		if err == nil {
			err = os.Rename(f.temp, path)
		}
		if err != nil {
			return errors.Join(err, os.Remove(f.temp))
		}
		return nil
	}
	err := nameFile(f.File, path)
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// Discard closes the file and has it gone.
func (f *NewFile) Discard() error {
	err := f.Close()
	if f.temp != "" {
		err = errors.Join(err, os.Remove(f.temp))
	}
	return err
}

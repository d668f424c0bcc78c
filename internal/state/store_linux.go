package state

import (
	"errors"
	"os"
)

// syncDir makes the names in dir last: fsync of a file does not cover the directory entry that leads to it (fsync(2)).
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

package sys

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// MakingFilesAs calls f on a thread of its own for which new files belong to the user and the group with the id, while it may
// do all that this process may. In a mount with mapped ids nobody makes anything whose own id is none of them.
func MakingFilesAs(id uint32, f func() error) error {
	err := errors.New("the thread did not run")
	OnThreadOfItsOwn(func() {
		if err = becomeFileOwner(int(id)); err == nil {
			err = f()
		}
	})
	return err
}

// becomeFileOwner sets the ids that files are made with, which takes capabilities from the calling thread, and takes these
// back (capabilities(7)).
func becomeFileOwner(id int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	if err := errors.Join(unix.Setfsgid(id), unix.Setfsuid(id)); err != nil {
		return os.NewSyscallError("setfsuid", err)
	}
	return os.NewSyscallError("capset", unix.Capset(&header, &data[0]))
}

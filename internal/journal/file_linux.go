package journal

import (
	"os"
	"syscall"
)

// lockFile waits for the lock of the open file. Whoever holds it writes one
// line.
func lockFile(f *os.File) error { return flock(f, syscall.LOCK_EX) }

func unlockFile(f *os.File) error { return flock(f, syscall.LOCK_UN) }

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if err != syscall.EINTR {
			return os.NewSyscallError("flock", err)
		}
	}
}

// statFile returns the file's size, and how many names it has.
func statFile(f *os.File) (size int64, names int, err error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		return 0, 0, os.NewSyscallError("fstat", err)
	}
	return st.Size, int(st.Nlink), nil
}

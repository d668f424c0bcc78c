package agent

import (
	"syscall"
	"unsafe"

	"github.com/hostcompute/hcs/internal/wire"
)

// stdio is what a new process gets as descriptors 0 to 2.
type stdio struct {
	files  [3]uintptr
	master int   // of its terminal, or -1
	opened []int // here, for closing
}

func (s *stdio) close() { wire.CloseFiles(s.opened) }

// openStdio puts the descriptors that came with the request in their places,
// and /dev/null or a new terminal in the others.
func openStdio(flags wire.SpawnFlags, files []int, r wire.SpawnRequest, who user) (*stdio, *wire.Failure) {
	s := &stdio{master: -1}
	var err error
	if flags&wire.Terminal != 0 {
		err = s.openTerminal(r, who)
	} else {
		err = s.place(flags, files, who)
	}
	if err != nil {
		s.close()
		return nil, failure(err, "open the standard streams")
	}
	return s, nil
}

func (s *stdio) place(flags wire.SpawnFlags, files []int, who user) error {
	null := -1
	for i, flag := range [...]wire.SpawnFlags{wire.Stdin, wire.Stdout, wire.Stderr} {
		switch {
		case flags&flag != 0 && len(files) > 0:
			own(files[0], who)
			s.files[i] = uintptr(files[0])
			files = files[1:]
			continue
		case null < 0:
			var err error
			if null, err = syscall.Open("/dev/null", syscall.O_RDWR|syscall.O_CLOEXEC, 0); err != nil {
				return err
			}
			s.opened = append(s.opened, null)
		}
		s.files[i] = uintptr(null)
	}
	return nil
}

// own gives a pipe to the user that is to use it, so that opening /dev/stdout
// by name works.
func own(fd int, who user) {
	var st syscall.Stat_t
	if who.uid != 0 && syscall.Fstat(fd, &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFIFO {
		_ = syscall.Fchown(fd, int(who.uid), int(who.gid))
	}
}

// openTerminal makes a new pseudo terminal of the container's own devpts. Its
// other end is opened through the master, not by a name (TIOCGPTPEER).
func (s *stdio) openTerminal(r wire.SpawnRequest, who user) error {
	const (
		tiocsptlck  = 0x40045431
		tiocgptpeer = 0x5441
	)
	master, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	s.master, s.opened = master, append(s.opened, master)
	var unlock int32
	if _, err := ioctl(master, tiocsptlck, uintptr(unsafe.Pointer(&unlock))); err != nil {
		return err
	}
	peer, err := ioctl(master, tiocgptpeer, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC)
	if err != nil {
		return err
	}
	s.opened = append(s.opened, peer)
	if r.Rows != 0 || r.Cols != 0 {
		size := [4]uint16{r.Rows, r.Cols}
		if _, err := ioctl(master, syscall.TIOCSWINSZ, uintptr(unsafe.Pointer(&size))); err != nil {
			return err
		}
	}
	s.files = [3]uintptr{uintptr(peer), uintptr(peer), uintptr(peer)}
	const ttyGroup = -1 // stays what devpts gave it
	return syscall.Fchown(peer, int(who.uid), ttyGroup)
}

func ioctl(fd int, request, arg uintptr) (int, error) {
	n, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, arg)
	if e != 0 {
		return -1, e
	}
	return int(n), nil
}

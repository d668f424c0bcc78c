package agent

import (
	"syscall"

	"github.com/hostcompute/hcs/internal/wire"
)

// resolveUser finds the user in the files of the container's own tree, which
// is all that the agent sees.
func resolveUser(spec string) (user, *wire.Failure) {
	passwd, f := readSmall("/etc/passwd")
	group, g := readSmall("/etc/group")
	if f == nil {
		f = g
	}
	if f == nil {
		return findUser(spec, passwd, group)
	}
	// Whoever spoils the files is not to shut out those who need no names.
	if u, nameless := findUser(spec, "", ""); nameless == nil {
		return u, nil
	}
	return user{}, f
}

// readSmall returns a file's content, empty where there is none. The program
// beside the agent may have put anything there: a fifo does not block it, and
// size is bounded.
func readSmall(path string) (string, *wire.Failure) {
	const limit = 1 << 20
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err == syscall.ENOENT || err == syscall.ENOTDIR {
		return "", nil
	}
	if err != nil {
		return "", &wire.Failure{Class: wire.Invalid, Text: "read " + path + ": " + err.Error()}
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return "", &wire.Failure{Class: wire.Invalid, Text: "read " + path + ": not a regular file"}
	}
	if st.Size > limit {
		return "", &wire.Failure{Class: wire.Invalid, Text: "read " + path + ": larger than 1 MiB"}
	}
	b := make([]byte, st.Size)
	n := 0
	for n < len(b) {
		k, err := syscall.Read(fd, b[n:])
		if k <= 0 || err != nil {
			break
		}
		n += k
	}
	return string(b[:n]), nil
}

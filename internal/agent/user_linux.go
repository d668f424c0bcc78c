package agent

import (
	"slices"
	"strconv"
	"syscall"

	"github.com/hostcompute/hcs/internal/passwd"
	"github.com/hostcompute/hcs/internal/wire"
)

// user is whom a process runs as.
type user struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// resolveUser finds the user and the groups in the files of the container's own
// tree, which is all that the agent sees.
func resolveUser(r *wire.SpawnRequest) (user, *wire.Failure) {
	if len(r.Groups) > 0 && groupsAreFixed() {
		return user{}, &wire.Failure{
			Class: wire.Invalid,
			Text:  "add group " + r.Groups[0] + ": the user namespace has one group, and lets nobody add others: /etc/subgid has those of users who have more",
		}
	}
	u, f := findUser(r.User, readSmall)
	if f == nil {
		f = u.join(r.Groups, readSmall)
	}
	return u, f
}

// inFiles looks something up in the files that read returns the text of. Whoever
// spoils these is not to shut out those who need no names: without files at all
// they are found.
func inFiles[T any](read func(file string) (string, error), find func(passwd.Files) (T, error)) (T, error) {
	files := passwd.Files{Owner: "the container", Read: read}
	found, err := find(files)
	if err == nil {
		return found, nil
	}
	files.Read = func(string) (string, error) { return "", nil }
	if nameless, nerr := find(files); nerr == nil {
		return nameless, nil
	}
	return found, err
}

// join adds supplementary groups.
func (u *user) join(groups []string, read func(file string) (string, error)) *wire.Failure {
	for _, which := range groups {
		gid, err := inFiles(read, func(f passwd.Files) (uint32, error) { return f.Group(which) })
		if err != nil {
			return &wire.Failure{Class: wire.Invalid, Text: "add group " + which + ": " + err.Error()}
		}
		if !slices.Contains(u.groups, gid) {
			u.groups = append(u.groups, gid)
		}
	}
	if n := len(u.groups); n > passwd.MaxGroups {
		return &wire.Failure{
			Class: wire.Invalid,
			Text:  "add groups: a process can have " + strconv.Itoa(passwd.MaxGroups) + ", not " + strconv.Itoa(n),
		}
	}
	return nil
}

// findUser finds the user in the files that read returns the text of.
func findUser(spec string, read func(file string) (string, error)) (user, *wire.Failure) {
	u, err := inFiles(read, func(f passwd.Files) (passwd.User, error) { return f.Find(spec) })
	if err != nil {
		return user{}, &wire.Failure{Class: wire.Invalid, Text: "find user " + spec + ": " + err.Error()}
	}
	if u.Home == "" {
		u.Home = "/"
	}
	return user{uid: u.UID, gid: u.GID, groups: u.Groups, home: u.Home}, nil
}

// readSmall returns a file's content, empty where there is none. The program
// beside the agent may have put anything there: a fifo does not block it, and
// size is bounded.
func readSmall(path string) (string, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err == syscall.ENOENT || err == syscall.ENOTDIR {
		return "", nil
	}
	if err != nil {
		return "", fileError("read " + path + ": " + err.Error())
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return "", fileError("read " + path + ": not a regular file")
	}
	if st.Size > passwd.MaxSize {
		return "", fileError("read " + path + ": larger than 1 MiB")
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

type fileError string

func (e fileError) Error() string { return string(e) }

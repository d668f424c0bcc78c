package agent

import (
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// groupsAreFixed reports whether the kernel lets nobody here set supplementary
// groups: so it is in a user namespace that an ordinary user made without help
// (user_namespaces(7)).
var groupsAreFixed = sync.OnceValue(func() bool {
	return strings.TrimSpace(readProc("/proc/self/setgroups")) == "deny"
})

// withoutID returns who of the user and all groups the user namespace does not
// have, or nothing.
func withoutID(c *syscall.Credential) string {
	gids := readProc("/proc/self/gid_map")
	if !mapped(readProc("/proc/self/uid_map"), c.Uid) || !mapped(gids, c.Gid) {
		return "the user"
	}
	for _, g := range c.Groups {
		if !mapped(gids, g) {
			return "group " + strconv.FormatUint(uint64(g), 10)
		}
	}
	return ""
}

// mapped looks an id up in a map: lines of the first id here, the first id
// outside, and their number.
func mapped(text string, id uint32) bool {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		first, err1 := strconv.ParseUint(f[0], 10, 32)
		count, err2 := strconv.ParseUint(f[2], 10, 32)
		if err1 == nil && err2 == nil && uint64(id) >= first && uint64(id)-first < count {
			return true
		}
	}
	return false
}

// readProc reads one of the kernel's own small files; one that cannot be read
// is empty.
func readProc(path string) string {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer syscall.Close(fd)
	b := make([]byte, 16<<10)
	n, err := syscall.Read(fd, b)
	if err != nil || n <= 0 {
		return ""
	}
	return string(b[:n])
}

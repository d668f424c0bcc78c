package agent

import (
	"slices"
	"strconv"
	"strings"

	"github.com/hostcompute/hcs/internal/wire"
)

// user is whom a process runs as.
type user struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// findUser resolves "user", "uid", "user:group", "uid:gid" and mixtures in
// the texts of a passwd and a group file (passwd(5), group(5)), as docker
// does: a number needs no entry; a user that is named without a group gets
// the groups that list it; malformed lines are passed over.
func findUser(spec, passwd, group string) (user, *wire.Failure) {
	name, groupName, hasGroup := strings.Cut(spec, ":")
	if name == "" {
		name = "0"
	}
	u := user{home: "/"}
	login, f := u.fromPasswd(name, passwd)
	if f != nil {
		return user{}, f
	}
	if hasGroup && groupName != "" {
		if u.gid, f = findGroup(groupName, group); f != nil {
			return user{}, f
		}
	} else if login != "" {
		u.groups = memberships(login, group)
	}
	// The primary group is among the supplementary ones: else a process could
	// shed it, and with it what the group may not do (CVE-2022-36109).
	if !slices.Contains(u.groups, u.gid) {
		u.groups = append([]uint32{u.gid}, u.groups...)
	}
	return u, nil
}

// fromPasswd fills in the user and returns its login name, empty for a number
// without an entry.
func (u *user) fromPasswd(name, passwd string) (string, *wire.Failure) {
	id, numeric := parseID(name)
	for line := range strings.Lines(passwd) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) < 6 {
			continue
		}
		uid, ok1 := parseID(f[2])
		gid, ok2 := parseID(f[3])
		if ok1 && ok2 && (f[0] == name || numeric && uid == id) {
			u.uid, u.gid = uid, gid
			if f[5] != "" {
				u.home = f[5]
			}
			return f[0], nil
		}
	}
	if !numeric {
		return "", &wire.Failure{Class: wire.Invalid, Text: "find user " + name + ": no such entry in the container's /etc/passwd"}
	}
	u.uid = id
	return "", nil
}

func findGroup(name, group string) (uint32, *wire.Failure) {
	id, numeric := parseID(name)
	for line := range strings.Lines(group) {
		f := strings.Split(line, ":")
		if len(f) < 4 || f[0] != name {
			continue
		}
		if gid, ok := parseID(f[2]); ok {
			return gid, nil
		}
	}
	if !numeric {
		return 0, &wire.Failure{Class: wire.Invalid, Text: "find group " + name + ": no such entry in the container's /etc/group"}
	}
	return id, nil
}

// maxGroups is the kernel's limit on a process's supplementary groups.
const maxGroups = 65536

func memberships(login, group string) []uint32 {
	var list []uint32
	for line := range strings.Lines(group) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) < 4 || len(list) == maxGroups {
			continue
		}
		for member := range strings.SplitSeq(f[3], ",") {
			if gid, ok := parseID(f[2]); ok && member == login {
				list = append(list, gid)
				break
			}
		}
	}
	return list
}

// parseID reads a user or group number. 2^32-1 is none: the kernel takes it
// for "unchanged".
func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != 1<<32-1
}

package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	passwdFile  = "/etc/passwd"
	groupFile   = "/etc/group"
	maxAccounts = 1 << 20   // bytes of passwd and group each
	maxID       = 1<<32 - 2 // 2^32-1 means "unchanged" to chown and setresuid
	maxGroups   = 65536     // of one process: NGROUPS_MAX of setgroups(2)
)

// An account is a line of passwd.
type account struct {
	name     string
	uid, gid uint32
	home     string
}

// A group is a line of group.
type group struct {
	name    string
	gid     uint32
	members []string
}

// ResolveUser finds the user that an image's configuration or a command line
// names: "", "user", "uid", "user:group", "uid:gid", or a mixture. It returns
// the identity and the home directory, empty if passwd does not tell.
//
// open opens a file of the image, "/etc/passwd" or "/etc/group", within the
// image's root and only if it is regular; it returns fs.ErrNotExist or
// errdefs.ErrNotFound if it is not there, which is no error for ids in
// digits. Without a group the user's own is taken, and those that list the
// user as a member. The primary group is among the supplementary ones, else
// a process could shed it and with it what the group may not (CVE-2022-36109).
//
// A name that is not found is an error of class ErrNotFound; a malformed id,
// or a file larger than 1 MiB, one of class ErrInvalidArgument. Lines that are
// malformed are passed over: an id that is no number is never taken for 0.
func ResolveUser(spec string, open func(name string) (io.ReadCloser, error)) (specs.User, string, error) {
	who, grp, explicit := strings.Cut(spec, ":")
	if who == "" {
		who = "0"
	}
	acc, err := findAccount(who, open)
	if err != nil {
		return specs.User{}, "", fmt.Errorf("resolve user %q: %w", spec, err)
	}
	u := specs.User{UID: acc.uid, GID: acc.gid}
	if explicit && grp != "" {
		u.GID, err = findGroup(grp, open)
		u.AdditionalGids = []uint32{u.GID}
	} else {
		u.AdditionalGids, err = groupsOf(acc, open)
	}
	if err != nil {
		return specs.User{}, "", fmt.Errorf("resolve user %q: %w", spec, err)
	}
	return u, acc.home, nil
}

func findAccount(who string, open func(string) (io.ReadCloser, error)) (account, error) {
	uid, numeric, err := parseID(who)
	if err != nil {
		return account{}, err
	}
	text, err := readAccounts(passwdFile, open)
	if err != nil {
		return account{}, err
	}
	var byID *account
	for line := range strings.SplitSeq(text, "\n") {
		acc, ok := parseAccount(line)
		if !ok {
			continue
		}
		if acc.name == who {
			return acc, nil
		}
		if numeric && acc.uid == uid && byID == nil {
			byID = &acc
		}
	}
	switch {
	case byID != nil:
		return *byID, nil
	case numeric:
		return account{uid: uid}, nil
	}
	return account{}, notFound("user %q not found in the image's %s", who, passwdFile)
}

func findGroup(which string, open func(string) (io.ReadCloser, error)) (uint32, error) {
	gid, numeric, err := parseID(which)
	if err != nil {
		return 0, err
	}
	text, err := readAccounts(groupFile, open)
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(text, "\n") {
		if g, ok := parseGroup(line); ok && g.name == which {
			return g.gid, nil
		}
	}
	if !numeric {
		return 0, notFound("group %q not found in the image's %s", which, groupFile)
	}
	return gid, nil
}

// groupsOf returns the account's primary group and all that list it.
func groupsOf(acc account, open func(string) (io.ReadCloser, error)) ([]uint32, error) {
	gids := []uint32{acc.gid}
	if acc.name == "" {
		return gids, nil
	}
	text, err := readAccounts(groupFile, open)
	if err != nil {
		return nil, err
	}
	seen := map[uint32]bool{acc.gid: true}
	for line := range strings.SplitSeq(text, "\n") {
		g, ok := parseGroup(line)
		if ok && !seen[g.gid] && slices.Contains(g.members, acc.name) {
			seen[g.gid] = true
			gids = append(gids, g.gid)
		}
	}
	if len(gids) > maxGroups {
		return nil, invalid("user %q is in %d groups of the image's %s: a process can have %d", acc.name, len(gids), groupFile, maxGroups)
	}
	return gids, nil
}

// parseID reports whether s is an id in digits, and its value. Digits that
// are too many for an id, or that mean -1, are an error, and so is a sign.
func parseID(s string) (uint32, bool, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == ':' }) {
		return 0, false, invalid("%q is neither a name nor an id", s)
	}
	if strings.Trim(s, "0123456789") != "" {
		if digits := strings.TrimLeft(s, "+-"); digits != s && strings.Trim(digits, "0123456789") == "" {
			return 0, false, invalid("id %s is out of range (0 to %d)", s, uint32(maxID))
		}
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > maxID {
		return 0, false, invalid("id %s is out of range (0 to %d)", s, uint32(maxID))
	}
	return uint32(n), true, nil
}

func parseAccount(line string) (account, bool) {
	f := strings.Split(strings.TrimSuffix(line, "\r"), ":")
	if len(f) < 4 || f[0] == "" || strings.HasPrefix(f[0], "#") {
		return account{}, false
	}
	uid, ok1, err1 := parseID(f[2])
	gid, ok2, err2 := parseID(f[3])
	if !ok1 || !ok2 || err1 != nil || err2 != nil || f[2] == "" || f[3] == "" {
		return account{}, false
	}
	acc := account{name: f[0], uid: uid, gid: gid}
	if len(f) > 5 {
		acc.home = f[5]
	}
	return acc, true
}

func parseGroup(line string) (group, bool) {
	f := strings.Split(strings.TrimSuffix(line, "\r"), ":")
	if len(f) < 3 || f[0] == "" || strings.HasPrefix(f[0], "#") || f[2] == "" {
		return group{}, false
	}
	gid, ok, err := parseID(f[2])
	if !ok || err != nil {
		return group{}, false
	}
	g := group{name: f[0], gid: gid}
	if len(f) > 3 && f[3] != "" {
		g.members = strings.Split(f[3], ",")
	}
	return g, true
}

// readAccounts reads one of the files whole; one that is not there is empty.
func readAccounts(name string, open func(string) (io.ReadCloser, error)) (string, error) {
	r, err := open(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errdefs.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("open the image's %s: %w", name, err)
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxAccounts+1))
	if err != nil {
		return "", fmt.Errorf("read the image's %s: %w", name, err)
	}
	if len(raw) > maxAccounts {
		return "", invalid("read the image's %s: it is larger than %d bytes", name, maxAccounts)
	}
	return string(raw), nil
}

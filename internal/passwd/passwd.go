package passwd

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// The files that Files.Read is asked for.
const (
	UserFile  = "/etc/passwd"
	GroupFile = "/etc/group"
)

// MaxSize bounds, in bytes, what Files.Read should return.
const MaxSize = 1 << 20

// DefaultPath is the PATH of users' programs that are given none, docker's.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const (
	maxID = 1<<32 - 2 // 2^32-1 means "unchanged" to chown and setresuid

	// MaxGroups is how many supplementary groups a process can have: NGROUPS_MAX
	// of setgroups(2).
	MaxGroups = 65536
)

// Errors that Find's match with errors.Is. Their own words are not part of its
// messages.
var (
	// ErrNotFound is a name that the files do not have.
	ErrNotFound = errors.New("not found")
	// ErrInvalid is what is neither a name nor an id.
	ErrInvalid = errors.New("invalid")
)

type failure struct {
	kind error
	text string
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.kind }

// fail makes an error without package fmt, which would add a tenth to the
// agent's size.
func fail(kind error, words ...string) error { return &failure{kind, strings.Join(words, "")} }

func outOfRange(id string) error {
	return fail(ErrInvalid, "id ", id, " is out of range (0 to ", strconv.FormatUint(maxID, 10), ")")
}

// Files are a passwd and a group file.
type Files struct {
	// Owner is whose they are, for messages: "the image".
	Owner string
	// Read returns the text of UserFile or GroupFile, empty if there is none.
	Read func(name string) (string, error)
}

// User is whom a process runs as.
type User struct {
	Name     string // empty for an id without an entry
	UID, GID uint32
	Groups   []uint32 // supplementary ones, of which GID is the first
	Home     string   // empty if the files do not tell
}

// Find finds "", "user", "uid", "user:group", "uid:gid", or a mixture, as
// docker does: an id needs no entry; a user that is named without a group has
// its own and those that list it as a member. The primary group is among the
// supplementary ones, else a process could shed it and with it what the group
// may not (CVE-2022-36109).
//
// Lines that are malformed are passed over: an id that is no number is never
// taken for 0.
func (f Files) Find(spec string) (User, error) {
	who, grp, explicit := strings.Cut(spec, ":")
	if who == "" {
		who = "0"
	}
	u, err := f.user(who)
	if err != nil {
		return User{}, err
	}
	if explicit && grp != "" {
		u.GID, err = f.Group(grp)
		u.Groups = []uint32{u.GID}
	} else {
		u.Groups, err = f.groupsOf(u)
	}
	if err != nil {
		return User{}, err
	}
	return u, nil
}

func (f Files) user(who string) (User, error) {
	uid, numeric, err := parseID(who)
	if err != nil {
		return User{}, err
	}
	text, err := f.Read(UserFile)
	if err != nil {
		return User{}, err
	}
	var byID *User
	for line := range strings.SplitSeq(text, "\n") {
		u, ok := parseUser(line)
		if !ok {
			continue
		}
		if u.Name == who {
			return u, nil
		}
		if numeric && u.UID == uid && byID == nil {
			byID = &u
		}
	}
	switch {
	case byID != nil:
		return *byID, nil
	case numeric:
		return User{UID: uid}, nil
	}
	return User{}, fail(ErrNotFound, "user ", strconv.Quote(who), " not found in ", f.Owner, "'s ", UserFile)
}

// Group finds a group by its name, or by its id, which needs no entry.
func (f Files) Group(which string) (uint32, error) {
	gid, numeric, err := parseID(which)
	if err != nil {
		return 0, err
	}
	text, err := f.Read(GroupFile)
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(text, "\n") {
		if g, ok := parseGroup(line); ok && g.name == which {
			return g.gid, nil
		}
	}
	if !numeric {
		return 0, fail(ErrNotFound, "group ", strconv.Quote(which), " not found in ", f.Owner, "'s ", GroupFile)
	}
	return gid, nil
}

// groupsOf returns the user's primary group and all that list the user.
func (f Files) groupsOf(u User) ([]uint32, error) {
	gids := []uint32{u.GID}
	if u.Name == "" {
		return gids, nil
	}
	text, err := f.Read(GroupFile)
	if err != nil {
		return nil, err
	}
	seen := map[uint32]bool{u.GID: true}
	for line := range strings.SplitSeq(text, "\n") {
		g, ok := parseGroup(line)
		if ok && !seen[g.gid] && slices.Contains(g.members, u.Name) {
			seen[g.gid] = true
			gids = append(gids, g.gid)
		}
	}
	if len(gids) > MaxGroups {
		return nil, fail(ErrInvalid, "user ", strconv.Quote(u.Name), " is in ", strconv.Itoa(len(gids)), " groups of ", f.Owner, "'s ", GroupFile,
			": a process can have ", strconv.Itoa(MaxGroups))
	}
	return gids, nil
}

// parseID reports whether s is an id in digits, and its value. Digits that
// are too many for an id, or that mean -1, are an error, and so is a sign.
func parseID(s string) (uint32, bool, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == ':' }) {
		return 0, false, fail(ErrInvalid, strconv.Quote(s), " is neither a name nor an id")
	}
	if strings.Trim(s, "0123456789") != "" {
		if digits := strings.TrimLeft(s, "+-"); digits != s && strings.Trim(digits, "0123456789") == "" {
			return 0, false, outOfRange(s)
		}
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > maxID {
		return 0, false, outOfRange(s)
	}
	return uint32(n), true, nil
}

func parseUser(line string) (User, bool) {
	f := strings.Split(strings.TrimSuffix(line, "\r"), ":")
	if len(f) < 4 || f[0] == "" || strings.HasPrefix(f[0], "#") {
		return User{}, false
	}
	uid, ok1, err1 := parseID(f[2])
	gid, ok2, err2 := parseID(f[3])
	if !ok1 || !ok2 || err1 != nil || err2 != nil || f[2] == "" || f[3] == "" {
		return User{}, false
	}
	u := User{Name: f[0], UID: uid, GID: gid}
	if len(f) > 5 {
		u.Home = f[5]
	}
	return u, true
}

// A group is a line of the group file.
type group struct {
	name    string
	gid     uint32
	members []string
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

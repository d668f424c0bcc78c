package passwd_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/passwd"
)

const (
	users = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/false\r\nfour:x:4:4\n44:x:55:56::/num:\n" +
		"bad:x:uid:0::/:\n#web2:x:9:9::/:\nshort:x:1\nminus:x:4294967295:0::/:\n"
	groups = "root:x:0:\nwww:x:34:web\nadm:x:4:web,other\nthree:x:3\nbad:x:gid:web\nstaff:x:50:other,web\nagain:x:4:web\n"
)

func files(users, groups string) passwd.Files {
	return passwd.Files{Owner: "the box", Read: func(name string) (string, error) {
		return map[string]string{passwd.UserFile: users, passwd.GroupFile: groups}[name], nil
	}}
}

func TestFind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		spec string
		want passwd.User
	}{
		{"", passwd.User{Name: "root", Groups: []uint32{0}, Home: "/root"}},
		{"web", passwd.User{Name: "web", UID: 33, GID: 34, Groups: []uint32{34, 4, 50}, Home: "/var/www"}},
		{"33:", passwd.User{Name: "web", UID: 33, GID: 34, Groups: []uint32{34, 4, 50}, Home: "/var/www"}},
		{"web:three", passwd.User{Name: "web", UID: 33, GID: 3, Groups: []uint32{3}, Home: "/var/www"}},
		{"four", passwd.User{Name: "four", UID: 4, GID: 4, Groups: []uint32{4}}},
		{"44", passwd.User{Name: "44", UID: 55, GID: 56, Groups: []uint32{56}, Home: "/num"}}, // a name before an id
		{"55", passwd.User{Name: "44", UID: 55, GID: 56, Groups: []uint32{56}, Home: "/num"}},
		{"1000:1001", passwd.User{UID: 1000, GID: 1001, Groups: []uint32{1001}}},
	} {
		got, err := files(users, groups).Find(c.spec)
		if d := cmp.Diff(c.want, got); err != nil || d != "" {
			t.Errorf("%q: %v: %s", c.spec, err, d)
		}
	}
}

func TestGroup(t *testing.T) {
	t.Parallel()
	for which, want := range map[string]uint32{"adm": 4, "4": 4, "77": 77, "0": 0, "4294967294": 4294967294} {
		if got, err := files(users, groups).Group(which); err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d", which, got, err, want)
		}
	}
	for which, kind := range map[string]error{"bad": passwd.ErrNotFound, "nope": passwd.ErrNotFound, "": passwd.ErrInvalid, "-1": passwd.ErrInvalid, "4294967295": passwd.ErrInvalid} {
		if got, err := files(users, groups).Group(which); !errors.Is(err, kind) {
			t.Errorf("%q: got %d, %v", which, got, err)
		}
	}
}

func TestFindRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		spec string
		kind error
		says string
	}{
		{"bad", passwd.ErrNotFound, `user "bad" not found in the box's /etc/passwd`},
		{"#web2", passwd.ErrNotFound, `user "#web2" not found`},
		{"short", passwd.ErrNotFound, `user "short" not found`},
		{"minus", passwd.ErrNotFound, `user "minus" not found`},
		{"0:bad", passwd.ErrNotFound, `group "bad" not found in the box's /etc/group`},
		{"-1", passwd.ErrInvalid, "id -1 is out of range (0 to 4294967294)"},
		{"0:4294967295", passwd.ErrInvalid, "id 4294967295 is out of range"},
		{"a b", passwd.ErrInvalid, `"a b" is neither a name nor an id`},
		{"0:1:2", passwd.ErrInvalid, `"1:2" is neither a name nor an id`},
	} {
		got, err := files(users, groups).Find(c.spec)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %+v, %v; want %q", c.spec, got, err, c.says)
		}
	}
	var many strings.Builder
	for i := range 70_000 {
		many.WriteString("g:x:" + strconv.Itoa(i) + ":web\n")
	}
	if _, err := files(users, many.String()).Find("web"); !errors.Is(err, passwd.ErrInvalid) || !strings.Contains(err.Error(), "is in 70000 groups") {
		t.Errorf("in too many groups: %v", err)
	}
	broken := errors.New("broken")
	f := passwd.Files{Read: func(string) (string, error) { return "", broken }}
	for _, spec := range []string{"web", "5:www", "5"} {
		if _, err := f.Find(spec); !errors.Is(err, broken) {
			t.Errorf("%q in files that cannot be read: %v", spec, err)
		}
	}
}

// FuzzFind has nobody become root, or one who is no id, by what is malformed.
func FuzzFind(f *testing.F) {
	f.Add("web:adm", users, groups)
	f.Add("4294967295", "a:b:c:d", "::::")
	f.Fuzz(func(t *testing.T, spec, users, groups string) {
		u, err := files(users, groups).Find(spec)
		if err != nil {
			if !errors.Is(err, passwd.ErrNotFound) && !errors.Is(err, passwd.ErrInvalid) {
				t.Fatalf("%q: %v", spec, err)
			}
			return
		}
		for _, id := range append(u.Groups, u.UID, u.GID) {
			if id == 1<<32-1 {
				t.Fatalf("%q is %+v", spec, u)
			}
		}
		if len(u.Groups) == 0 || u.Groups[0] != u.GID {
			t.Fatalf("%q: the primary group is not the first of %+v", spec, u)
		}
		who, _, _ := strings.Cut(spec, ":")
		if u.UID == 0 && strings.Trim(who, "0") != "" && !strings.Contains(users, ":0") {
			t.Fatalf("%q became root by %q", spec, users)
		}
	})
}

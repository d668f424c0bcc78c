package agent

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/passwd"
	"github.com/hostcompute/hcs/internal/wire"
)

const (
	users = "root:x:0:0:root:/root:/bin/sh\nmalformed\nbad:x:uid:0::/:\n\nweb:x:33:33:web:/var/www:/bin/false\n" +
		"nohome:x:40:41:::\nminus:x:4294967295:0::/:\n"
	groups = "root:x:0:\nwww:x:33:\nadm:x:4:web,other\nshort:x\nbad:x:gid:web\nstaff:x:50:other,web\n"
)

func texts(passwd, group string) func(string) (string, error) {
	return func(file string) (string, error) {
		if file == "/etc/passwd" {
			return passwd, nil
		}
		return group, nil
	}
}

// TestFindUserInSpoiledFiles lets in who needs no names.
func TestFindUserInSpoiledFiles(t *testing.T) {
	spoiled := func(file string) (string, error) { return "", fileError("read " + file + ": not a regular file") }
	if u, f := findUser("5:6", spoiled); f != nil || u.uid != 5 || u.gid != 6 || u.home != "/" {
		t.Errorf("got %+v, %v", u, f)
	}
	if u, f := findUser("root", spoiled); f == nil || !strings.Contains(f.Text, "read /etc/passwd: not a regular file") {
		t.Errorf("got %+v, %v", u, f)
	}
}

func TestFindUser(t *testing.T) {
	for _, tt := range []struct {
		spec string
		want user
		fail string
	}{
		{spec: "", want: user{groups: []uint32{0}, home: "/root"}},
		{spec: "0", want: user{groups: []uint32{0}, home: "/root"}},
		{spec: "root", want: user{groups: []uint32{0}, home: "/root"}},
		{spec: "web", want: user{uid: 33, gid: 33, groups: []uint32{33, 4, 50}, home: "/var/www"}},
		{spec: "33", want: user{uid: 33, gid: 33, groups: []uint32{33, 4, 50}, home: "/var/www"}},
		{spec: "web:", want: user{uid: 33, gid: 33, groups: []uint32{33, 4, 50}, home: "/var/www"}},
		{spec: "web:adm", want: user{uid: 33, gid: 4, groups: []uint32{4}, home: "/var/www"}},
		{spec: "web:7", want: user{uid: 33, gid: 7, groups: []uint32{7}, home: "/var/www"}},
		{spec: "1000", want: user{uid: 1000, groups: []uint32{0}, home: "/"}},
		{spec: "1000:1001", want: user{uid: 1000, gid: 1001, groups: []uint32{1001}, home: "/"}},
		{spec: "nohome", want: user{uid: 40, gid: 41, groups: []uint32{41}, home: "/"}},
		{spec: "nobody", fail: "find user nobody"},
		{spec: "web:nogroup", fail: `group "nogroup" not found in the container's /etc/group`},
		{spec: "malformed", fail: "find user malformed"},
		{spec: "bad", fail: "find user bad"},
		{spec: "minus", fail: "find user minus"},
		{spec: "4294967295", fail: "find user 4294967295"},
		{spec: "-1", fail: "id -1 is out of range"},
		{spec: "0:4294967295", fail: "id 4294967295 is out of range"},
	} {
		got, f := findUser(tt.spec, texts(users, groups))
		switch {
		case tt.fail != "":
			if f == nil || !strings.Contains(f.Text, tt.fail) {
				t.Errorf("%q: got %+v, %v; want %q", tt.spec, got, f, tt.fail)
			}
		case f != nil:
			t.Errorf("%q: %v", tt.spec, f)
		default:
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(user{})); d != "" {
				t.Errorf("%q: %s", tt.spec, d)
			}
		}
	}
}

func TestJoin(t *testing.T) {
	spoiled := func(file string) (string, error) { return "", fileError("read " + file + ": not a regular file") }
	many := make([]string, passwd.MaxGroups)
	for i := range many {
		many[i] = strconv.Itoa(i + 100)
	}
	for _, tt := range []struct {
		name  string
		files func(string) (string, error)
		add   []string
		want  []uint32
		fail  string
	}{
		{"none", texts(users, groups), nil, []uint32{33}, ""},
		{"names and ids", texts(users, groups), []string{"adm", "7", "0"}, []uint32{33, 4, 7, 0}, ""},
		{"twice", texts(users, groups), []string{"www", "33", "adm", "4"}, []uint32{33, 4}, ""},
		{"no such name", texts(users, groups), []string{"adm", "nope"}, nil, `add group nope: group "nope" not found in the container's /etc/group`},
		{"no id", texts(users, groups), []string{"4294967295"}, nil, "add group 4294967295: id 4294967295 is out of range"},
		{"an id, spoiled files", spoiled, []string{"7"}, []uint32{33, 7}, ""},
		{"a name, spoiled files", spoiled, []string{"adm"}, nil, "add group adm: read /etc/group: not a regular file"},
		{"as many as there can be", texts("", ""), many[1:], nil, ""},
		{"too many", texts("", ""), many, nil, "add groups: a process can have 65536, not 65537"},
	} {
		u := user{uid: 33, gid: 33, groups: []uint32{33}}
		f := u.join(tt.add, tt.files)
		switch {
		case tt.fail != "":
			if f == nil || f.Class != wire.Invalid || !strings.HasPrefix(f.Text, tt.fail) {
				t.Errorf("%s: got %v, want %q", tt.name, f, tt.fail)
			}
		case f != nil:
			t.Errorf("%s: %v", tt.name, f)
		case tt.want != nil && !slices.Equal(u.groups, tt.want):
			t.Errorf("%s: got %v, want %v", tt.name, u.groups, tt.want)
		}
	}
}

func TestFindUserWithoutFiles(t *testing.T) {
	if got, f := findUser("5:6", texts("", "")); f != nil || got.uid != 5 || got.gid != 6 {
		t.Errorf("got %+v, %v", got, f)
	}
	if _, f := findUser("name", texts("", "")); f == nil {
		t.Error("a name without a file is found")
	}
}

func FuzzFindUser(f *testing.F) {
	f.Add("web:adm", users, groups)
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		if u, f := findUser(spec, texts(passwd, group)); f == nil && (u.uid == 1<<32-1 || u.gid == 1<<32-1) {
			t.Errorf("%q is %+v", spec, u)
		}
	})
}

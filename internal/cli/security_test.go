package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/container"
)

// parses checks a parser: what it makes of each text, and which it refuses.
func parses[T any](t *testing.T, parse func(string) (T, error), want map[string]T, refused ...string) {
	t.Helper()
	for text, want := range want {
		got, err := parse(text)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%q: %v %s", text, err, d)
		}
	}
	for _, text := range refused {
		if got, err := parse(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

func TestParseTmpfs(t *testing.T) {
	t.Parallel()
	parses(t, parseTmpfs, map[string]container.Mount{
		"/t":                              {Type: "tmpfs", Target: "/t"},
		"/t:":                             {Type: "tmpfs", Target: "/t"},
		"/t:rw,nosuid,nodev,exec":         {Type: "tmpfs", Target: "/t"},
		"/t:ro,noexec,size=64k,mode=1700": {Type: "tmpfs", Target: "/t", ReadOnly: true, NoExec: true, Size: 64 << 10, Mode: 0o1700},
	}, "/t:size", "/t:size=x", "/t:mode=8", "/t:mode=", "/t:mode=10000", "/t:uid=1", "/t:ro:rw")
}

func TestParseDevice(t *testing.T) {
	t.Parallel()
	parses(t, parseDevice, map[string]container.Device{
		"/dev/fuse":           {Source: "/dev/fuse"},
		"/dev/fuse:rw":        {Source: "/dev/fuse", Access: "rw"},
		"/dev/fuse:/dev/x":    {Source: "/dev/fuse", Target: "/dev/x"},
		"/dev/fuse:/dev/x:r":  {Source: "/dev/fuse", Target: "/dev/x", Access: "r"},
		"/dev/fuse:/dev/x:m":  {Source: "/dev/fuse", Target: "/dev/x", Access: "m"},
		"/dev/fuse:/dev/rw:w": {Source: "/dev/fuse", Target: "/dev/rw", Access: "w"},
	}, "", "fuse", "dev/fuse:rw", "/a:/b:/c", "/a:/b:x:rw")
}

func TestParseUlimit(t *testing.T) {
	t.Parallel()
	parses(t, parseUlimit, map[string]container.Ulimit{
		"nofile=64":        {Name: "nofile", Soft: 64, Hard: 64},
		"nofile=64:128":    {Name: "nofile", Soft: 64, Hard: 128},
		"core=0:-1":        {Name: "core", Hard: container.Unlimited},
		"stack=unlimited":  {Name: "stack", Soft: container.Unlimited, Hard: container.Unlimited},
		"core=0:unlimited": {Name: "core", Hard: container.Unlimited},
	}, "", "nofile", "nofile=", "nofile=x", "nofile=1:", "nofile=:1", "nofile=1:2:3", "nofile=1k")
}

func TestParseUserns(t *testing.T) {
	t.Parallel()
	parses(t, parseUserns, map[string]container.IDs{
		"": {}, "host": {}, "auto": container.AutoIDs, "100000:65536": {First: 100000, Size: 65536},
		"4294967294:1": {First: 4294967294, Size: 1},
	}, "0:65536", "100000", "100000:", ":1", "1:0", "-1:5", "keep-id", "1:4294967296", "1:2:3")
}

func TestParseSysctls(t *testing.T) {
	t.Parallel()
	got, err := parseSysctls([]string{"net.core.somaxconn=5", "kernel.sem=1 2=3"})
	if d := cmp.Diff(map[string]string{"net.core.somaxconn": "5", "kernel.sem": "1 2=3"}, got); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	if got, err := parseSysctls([]string{"net.core.somaxconn"}); err == nil {
		t.Errorf("without a value: %v", got)
	}
}

func TestParseLog(t *testing.T) {
	t.Parallel()
	one := func(text string) (container.Log, error) { return parseLog([]string{text}) }
	parses(t, one, map[string]container.Log{
		"max-size=20k": {MaxSize: 20 << 10}, "max-size=-1": {MaxSize: -1}, "max-file=7": {MaxFiles: 7},
	}, "", "max-size", "max-size=0", "max-size=-2", "max-size=x", "max-file", "max-file=0", "max-file=-1", "mode=x")
	if got, err := parseLog([]string{"max-size=1m", "max-file=2", "max-size=2m"}); err != nil || got != (container.Log{MaxSize: 2 << 20, MaxFiles: 2}) {
		t.Errorf("several: %+v, %v", got, err)
	}
}

func TestParseLabels(t *testing.T) {
	t.Parallel()
	got, err := parseLabels([]string{"a=b", "c", "d=e=f", "a=g"})
	if d := cmp.Diff(map[string]string{"a": "g", "c": "", "d": "e=f"}, got); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	if got, err := parseLabels([]string{"=x"}); err == nil {
		t.Errorf("without a name: %v", got)
	}
}

func TestSetSecurity(t *testing.T) {
	t.Parallel()
	one := func(text string) (container.Security, error) {
		var s container.Security
		err := setSecurity(&s, text)
		return s, err
	}
	parses(t, one, map[string]container.Security{
		"no-new-privileges": {NoNewPrivileges: true}, "no-new-privileges=true": {NoNewPrivileges: true},
		"no-new-privileges:true": {NoNewPrivileges: true}, "no-new-privileges=false": {},
		"apparmor=unconfined": {}, "label=disable": {}, "seccomp=builtin": {},
		"seccomp=unconfined": {Seccomp: container.SeccompUnconfined}, "seccomp:unconfined": {Seccomp: container.SeccompUnconfined},
	}, "", "seccomp", "seccomp=profile.json", "no-new-privileges=maybe", "apparmor=profile", "label=type:x")
}

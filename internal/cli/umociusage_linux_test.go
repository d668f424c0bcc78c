package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/internal/testenv"
)

// said is what a program wrote, and its exit status.
type said struct {
	out, err string
	status   int
}

func (p program) say(args ...string) said {
	p.t.Helper()
	var out, err bytes.Buffer
	cmd := exec.Command(p.path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, &out, &err
	failed := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](failed); failed != nil && !ok {
		p.t.Fatal(failed)
	}
	return said{out.String(), err.String(), cmd.ProcessState.ExitCode()}
}

var usageOf = regexp.MustCompile(`(?m)^NAME:\n +(umoci[a-z -]*) - `)

// shape is what scripts can tell of it without reading sentences: the status,
// whether a usage was printed, of what, where, and whether there was more.
func (s said) shape() any {
	type stream struct {
		Usage string
		More  bool
	}
	of := func(text string) stream {
		if m := usageOf.FindStringSubmatchIndex(text); m != nil {
			return stream{text[m[2]:m[3]], strings.TrimSpace(text[:m[0]]) != ""}
		}
		return stream{"", text != ""}
	}
	return struct {
		Status   int
		Out, Err stream
	}{s.status, of(s.out), of(s.err)}
}

// umociVerbs are all commands that both have, each with arguments that are
// complete.
var umociVerbs = map[string]string{
	"init": "--layout new", "new": "--image l:new", "config": "--image l:b", "unpack": "--image l:b bundle", "repack": "--image l:b bundle",
	"insert": "--image l:b tree /opt", "tag": "--image l:b c", "remove": "--image l:missing", "rm": "--image l:missing", "list": "--layout l",
	"ls": "--layout l", "stat": "--image l:b", "gc": "--layout l", "raw unpack": "--image l:b root", "raw add-layer": "--image l:b tree/sub/file",
	"raw runtime-config": "--image l:b config.json", "raw config": "--image l:b config.json",
}

// umociOtherwise are the command lines with which ours does something else, and
// why.
var umociOtherwise = map[string]string{
	"help help":       "the heading has the whole name, as all others",
	"help raw unpack": "the help is of what was asked for, not of raw",
	"config --image l:b --manifest.annotation novalue": "umoci's panics",
	"raw config --image l:b --rootfs missing c.json":   "a tree that is not there is a mistake",
	"raw unpack --image l:b plain":                     "so is a file where the tree is to be",
}

// TestUmociUsageAgrees gives both programs every command's help, and command
// lines that lack something, have too much, or what cannot be.
func TestUmociUsageAgrees(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	ours, theirs := preparedUmocis(t)
	lines := []string{
		"", "--help", "-h", "--version", "-v", "help", "h", "help help", "help raw", "help raw unpack", "help bogus", "raw", "raw --help", "raw -h", "raw help",
		"raw help unpack", "raw help bogus", "raw h config", "bogus", "bogus --help", "bogus -h", "bogus --bogus", "raw bogus", "raw bogus --help",
		"--bogus", "--bogus ls", "--bogus --help", "-z", "raw --bogus", "--help bogus", "--help ls", "--log", "--log=bogus", "--log= ls --layout l",
		"--verbose=maybe ls", "--verbose bogus", "--log=info bogus --help", "raw --help bogus", "--version bogus", "--version --help",
		"ls --verbose --layout l", "ls --log=info --layout l", "ls --version", "ls -v", "raw --version", "raw --verbose", "completion", "__complete ls",
		"unpack --image l:b --uid-map", "unpack --image l:b --uid-map 0 d", "unpack --image l:b --uid-map a:b:c d", "unpack --image l:b --gid-map 0:0:0:0 d",
		"unpack --image l:b --rootless=maybe d", "unpack --image l:b --keep-dirlinks=2 d", "unpack --image=: d", "unpack --image=l: d", "unpack --image= d",
		"unpack --image :b d", "unpack --image l:b: d", "unpack --image missing:b d", "unpack --image l:missing d",
		"config --image l:b --created yesterday", "config --image l:b --history.created yesterday", "config --image l:b --tag bad:/", "config --image l:b --tag=",
		"config --image l:b --clear bogus", "config --image l:b --config.env =x", "config --image l:b --config.label novalue", "config --image l:b --no-history=maybe",
		"config --image l:b --manifest.annotation novalue", "config --image l:b --no-history --history.author x", "config --image l:b --clear rootfs.diffids",
		"repack --image l:bad//tag bundle", "repack --image l:b --history.created yesterday missing", "repack --image l:b --mask-path rel missing",
		"insert --image l:b --tag bad:/ tree /opt", "insert --image l:b --opaque --whiteout /opt", "insert --image l:b --whiteout tree /opt",
		"insert --image l:b --history.created x tree /opt", "insert --image l:b --uid-map x tree /opt", "tag --image l:b bad:/", "tag --image l:b ''", "new --image l:bad:/",
		"new --image missing:x", "new --image ''", "init --layout ''", "init --layout a:b", "ls --layout a:b", "gc --layout a:b", "ls --layout tree", "gc --layout tree",
		"stat --json=maybe --image l:b", "stat --image tree", "raw add-layer --image l:b --tag bad:/ plain", "raw add-layer --image l:b missing",
		"raw config --image l:b --rootfs missing c.json", "raw config --image l:b missing/c.json", "raw config --image l:b --uid-map x c.json",
		"raw unpack --image l:b --uid-map x r", "raw unpack --image l:b plain", "raw unpack --image l:missing r",
	}
	for verb, good := range umociVerbs {
		lines = append(lines, verb, verb+" --help", verb+" -h", verb+" --help extra", verb+" "+good+" --help", verb+" --bogus", verb+" --bogus --help", verb+" -z",
			verb+" --bogus "+good, verb+" "+good+" more more", verb+" --image", verb+" --image=", verb+" --layout", verb+" --layout=", "help "+strings.Fields(verb)[0],
			verb+" help", verb+" --", verb+" ''")
	}
	for _, line := range lines {
		args := strings.Fields(line)
		for i, arg := range args {
			args[i] = strings.Trim(arg, "'")
		}
		got, want := ours.say(args...), theirs.say(args...)
		if reason := umociOtherwise[line]; reason != "" {
			if reflect.DeepEqual(got.shape(), want.shape()) {
				t.Errorf("umoci %s: both do the same by now; it should differ: %s", line, reason)
			}
			continue
		}
		if !reflect.DeepEqual(got.shape(), want.shape()) {
			t.Errorf("umoci %s: %+v, want %+v\n%s", line, got.shape(), want.shape(), want.err)
		}
	}
}

// preparedUmocis are both programs, with what command lines are about.
func preparedUmocis(t *testing.T) (ours, theirs program) {
	t.Helper()
	ours, theirs = bothUmocis(t)
	prepareUmoci(ours)
	prepareUmoci(theirs)
	return ours, theirs
}

// prepareUmoci makes what command lines are about.
func prepareUmoci(p program) {
	p.t.Helper()
	for _, dir := range []string{"tree/sub", "accounts/etc"} {
		if err := os.MkdirAll(filepath.Join(p.dir, dir), 0o755); err != nil {
			p.t.Fatal(err)
		}
	}
	for name, content := range map[string]string{
		"tree/sub/file": "content", "plain": "",
		"accounts/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nme:x:7:8:me:/home/me:/bin/sh\nbad:x:y:z:::\nhomeless:x:9:9:::\n",
		"accounts/etc/group":  "root:x:0:\nus:x:20:me\nthem:x:21:other\nall:x:22:root,me,other\n",
	} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(content), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	for _, line := range []string{"init --layout l", "new --image l:b"} {
		if s := p.say(strings.Fields(line)...); s.status != 0 {
			p.t.Fatalf("%s %s: %s", p.path, line, s.err)
		}
	}
}

// umociBelieves are users, and trees, of which umoci makes root, or half of what
// is said, although they can be nobody. Ours refuses them.
var umociBelieves = [][2]string{{"bad", "accounts"}, {"me:us:x", "accounts"}, {"-1", ""}, {"a b", ""}}

// TestUmociUserAgrees has both programs make runtime configurations for many
// users of images, with a tree that has accounts and without.
func TestUmociUserAgrees(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	ours, theirs := preparedUmocis(t)
	for _, user := range []string{
		"", "0", "7", "7:8", "7:20", "77", "77:88", "me", "me:us", "me:them", "me:20", "root", "root:them", "7:us", "homeless", "homeless:", "me:", ":us", ":20",
		"nobody", "nobody:us", "me:nogroup", "77:nogroup", "bad", "007", "-1", "a b", "me:us:x",
	} {
		for _, tree := range []string{"", "accounts", "tree"} {
			args := []string{"raw", "runtime-config", "--image", "l:user"}
			if tree != "" {
				args = append(args, "--rootfs", tree)
			}
			var got, want said
			var gotSpec, wantSpec map[string]any
			for _, x := range []struct {
				program
				said *said
				spec *map[string]any
			}{{ours, &got, &gotSpec}, {theirs, &want, &wantSpec}} {
				x.say("config", "--image", "l:b", "--tag", "user", "--created", "2001-02-03T04:05:06Z", "--config.user", user)
				*x.said = x.say(append(args, "config.json")...)
				*x.spec = takeSpec(x.program)
			}
			if slices.Contains(umociBelieves, [2]string{user, tree}) {
				if got.status != 1 || gotSpec != nil || want.status != 0 {
					t.Errorf("user %q in tree %q: %+v, and umoci's %+v", user, tree, got, want)
				}
				continue
			}
			if !reflect.DeepEqual(got.shape(), want.shape()) {
				t.Errorf("user %q in tree %q: %+v, want %+v\n%s%s", user, tree, got.shape(), want.shape(), got.err, want.err)
			}
			if !reflect.DeepEqual(gotSpec, wantSpec) {
				t.Errorf("user %q in tree %q: process\n%v\nwant\n%v", user, tree, gotSpec["process"], wantSpec["process"])
			}
		}
	}
}

// takeSpec returns the runtime configuration that a program wrote, and removes
// it; nil if there is none.
func takeSpec(p program) map[string]any {
	p.t.Helper()
	file := filepath.Join(p.dir, "config.json")
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	if len(raw) == 0 { // as umoci leaves it when it fails
		if err := os.Remove(file); err != nil {
			p.t.Fatal(err)
		}
		return nil
	}
	var spec map[string]any
	if err := errors.Join(json.Unmarshal(raw, &spec), os.Remove(file)); err != nil {
		p.t.Fatalf("%q: %v", raw, err)
	}
	delete(spec["linux"].(map[string]any), "maskedPaths") // ours masks more of /proc
	return spec
}

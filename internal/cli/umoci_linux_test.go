package cli_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/internal/testenv"
)

// program is a command line that is called umoci: umoci's own, or ours.
type program struct {
	t    *testing.T
	path string
	dir  string // where it runs
}

func bothUmocis(t *testing.T) (ours, theirs program) {
	t.Helper()
	theirs = program{t, testenv.NeedCommand(t, "/usr/bin/umoci")[0], t.TempDir()}
	link := filepath.Join(t.TempDir(), "umoci")
	if err := os.Symlink(filepath.Join(testenv.Programs(t), "hcs"), link); err != nil {
		t.Fatal(err)
	}
	return program{t, link, t.TempDir()}, theirs
}

// run returns what the program writes and its exit status.
func (p program) run(args ...string) (string, int) {
	p.t.Helper()
	cmd := exec.Command(p.path, args...)
	cmd.Dir = p.dir
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), exit.ExitCode()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return string(out), 0
}

// TestUmociAgrees runs the same commands with both programs, each in a
// directory of its own, and compares exit status and what they print, but for
// times and digests, which are never the same.
func TestUmociAgrees(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	ours, theirs := bothUmocis(t)
	for _, p := range []program{ours, theirs} {
		if err := os.MkdirAll(filepath.Join(p.dir, "tree/sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.dir, "tree/sub/file"), []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(p.dir, "full"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"plain", "layer.tar", "full/other"} {
			if err := os.WriteFile(filepath.Join(p.dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, line := range []string{
		"init --layout l", "init --layout l", "init", "ls --layout missing", "ls --layout l", "new --image l:b", "new --image l", "new --image l:b",
		"ls --layout l", "tag --image l:b a", "tag --image l:missing x", "list --layout l", "stat --image l:b", "stat --json --image l:missing",
		"config --image l:b --tag c --config.env A=b --author me --history.comment c --history.created 2001-02-03T04:05:06Z --history.created_by by",
		"config --image l:c --no-history --config.cmd -c", "config --image l:c --clear bogus", "config --image l:c --config.env novalue",
		"config --image l:c extra", "stat --image l:c", "stat --image l:c --json",
		"insert --image l:c --history.created 2001-02-03T04:05:06Z tree /opt", "insert --image l:c --opaque --whiteout tree /opt",
		"insert --image l:c onlyone", "insert --image l:c missing /x",
		"unpack --image l:c b", "unpack --image l:c b", "unpack --image l:missing d", "unpack --image l:c",
		"repack --image l:r --history.created 2001-02-03T04:05:06Z b", "repack --image l:r missing", "stat --image l:r",
		"raw unpack --image l:c r", "raw runtime-config --image l:c config.json", "raw config --image l:c --rootfs r config.json",
		"raw add-layer --image l:c missing.tar", "rm --image l:r", "rm --image l:r", "remove --image l:a", "gc --layout l", "ls --layout l",
		"bogus", "ls --layout l extra",
		"raw bogus", "raw help bogus", "help bogus", "ls -layout l", "-log=debug ls -layout=l", "-verbose list --layout l", "--log fatal ls --layout l",
		"--log=bogus ls --layout l", "--log=INFO ls --layout l", "stat -json -image l:c", "config -image l:c -tag dash -config.cmd -image -history.author me", "stat --image=l:dash",
		"config --image l:c --no-history --history.comment x", "repack --image l:x --no-history --history.author x b",
		"insert --image l:c --tag x --no-history --history.created_by x tree /q", "raw add-layer --image l:c --tag x --no-history --history.created x layer.tar",
		"config --image l:c --tag= --author you", "insert --image l:c --tag bad:/ tree /q", "new --image l:bad//tag", "new --image :x", "tag --image l:c a/b+c",
		"tag --image l:c bad//tag", "tag --image l:c", "tag --image l:c one two", "rm --image l:c extra", "gc", "gc --layout missing",
		"stat --image l:c extra", "stat l:c", "unpack --image l:c plain", "unpack --image l:c full", "repack --image l:again full",
		"unpack late --image l:c", "unpack --rootless --image l:c rootless", "unpack --uid-map bogus --image l:c d", "raw config --image l:c",
		"raw config --image l:c --uid-map 0:1000 --gid-map 0:1000:2 mapped.json", "raw config --image l:c --rootfs full/rootfs --rootless rootless.json",
		"ls --layout l",
	} {
		args := strings.Fields(line)
		got, status := ours.run(args...)
		want, wantStatus := theirs.run(args...)
		if status != wantStatus {
			t.Errorf("umoci %s: status %d, want %d", line, status, wantStatus)
		}
		if got, want := unlikely(got), unlikely(want); got != want {
			t.Errorf("umoci %s: prints\n%s\nwant\n%s", line, got, want)
		}
	}
	if got, want := names(t, ours.dir), names(t, theirs.dir); !slices.Equal(got, want) {
		t.Errorf("there are\n%v\nwant\n%v", got, want)
	}
}

// unlikely takes out what differs from run to run, and columns that are
// as wide as that is.
func unlikely(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		var words []string
		for word := range strings.FieldsFuncSeq(line, func(r rune) bool { return strings.ContainsRune(" \n,{}[]\"", r) }) {
			switch {
			case strings.HasPrefix(word, "sha256:"):
				word = "DIGEST"
			case strings.HasPrefix(word, "20") && strings.Count(word, ":") == 2:
				word = "TIME"
			case strings.HasSuffix(word, "B") && strings.Trim(word, "0123456789.kMB") == "":
				word = "SIZE"
			case strings.Trim(word, "0123456789:") == "": // sizes in JSON
				continue
			case word == "annotations" || word == "ci.umo.uncompressed_blob_size" || word == ":": // newer than Debian's umoci
				continue
			}
			words = append(words, word)
		}
		lines = append(lines, strings.Join(words, " "))
	}
	return strings.Join(lines, "\n")
}

// names lists a tree, without the names of blobs.
func names(t *testing.T, root string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(root, func(p string, _ os.DirEntry, err error) error {
		name := strings.TrimPrefix(p, root)
		if i := strings.Index(name, "sha256"); i >= 0 {
			name = name[:i] + "SHA256"
		}
		list = append(list, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestMountedBundle goes the way of a bundle that is mounted.
func TestMountedBundle(t *testing.T) {
	h := newHost(t)
	layout := filepath.Join(h.dir, "layout")
	must := func(args ...string) { h.must(args...) }
	must("image", "load", "oci:"+testenv.Image(t, "busybox"))
	must("image", "save", "busybox", "oci:"+layout+":latest")
	b := filepath.Join(h.dir, "bundle")
	must("image", "unpack", "--image", layout, "--mount", b)
	if err := os.WriteFile(filepath.Join(b, "rootfs/new"), []byte("new"), 0o600); err != nil {
		t.Error(err)
	}
	must("image", "repack", "--image", layout+":new", b)
	must("image", "unmount", b)
	if _, err := os.Lstat(b); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the bundle: %v", err)
	}
	if got := h.must("image", "diff", "busybox", "oci:"+layout+":new"); !strings.HasSuffix(got, "A /new\n") {
		t.Errorf("differences are %s", got)
	}
	must("image", "rm", "busybox")
}

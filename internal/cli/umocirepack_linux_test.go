package cli_test

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/testenv"
)

// umociChange is done to a bundle's tree, by a shell in its root, before the bundle is repacked.
type umociChange struct {
	name, script string
	flags        string // of repack
}

var umociChanges = []umociChange{
	{name: "a new file", script: "echo new >dir/new"},
	{name: "content", script: "echo more >>dir/sub/file"},
	{name: "content of the same size", script: "echo 2 >plain"},
	{name: "a mode", script: "chmod 4711 plain"},
	{name: "an owner", script: "chown -h 12:34 dir/link"},
	{name: "a time", script: "touch -d 2002-02-02 plain"},
	{name: "a time of a directory", script: "touch -d 2002-02-02 dir/sub"},
	{name: "the root", script: "chmod 700 ."},
	{name: "an attribute", script: "setfattr -n user.x -v y plain"},
	{name: "removed", script: "rm plain"},
	{name: "a removed tree", script: "rm -r dir"},
	{name: "a removed name of two", script: "rm dir/hard"},
	{name: "renamed", script: "mv dir DIR"},
	{name: "a link elsewhere", script: "ln -sfn other dir/link"},
	{name: "a file from a link", script: "rm dir/link; echo x >dir/link"},
	{name: "a directory from a file", script: "rm plain; mkdir plain; echo x >plain/x"},
	{name: "an empty directory from a full one", script: "rm -r dir/sub/*"},
	{name: "devices", script: "mknod null c 1 3; mknod loop b 7 0; mkfifo fifo"},
	{name: "odd names", script: `echo x >"$(printf 'a \303\244*?[b]#\\\t\nc')"`},
	{name: "long names", script: "n=$(printf %0200d 1); mkdir $n $n/$n; ln -s $n$n long; echo x >$n/$n/x"},
	{name: "a volume", script: "echo x >vol/x; rm vol/was"},
	{name: "a volume that is not masked", script: "echo x >vol/x; rm vol/was", flags: "--no-mask-volumes"},
	{name: "masks", script: "echo x >dir/sub/x; rm plain; echo x >dirt", flags: "--mask-path /dir --mask-path plain"},
	{name: "nothing", script: "true"},
}

// TestUmociRepacks does the same to bundles that both programs have made, and compares what is in the layers that they make of that.
func TestUmociRepacks(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedCommand(t, "setfattr")
	t.Parallel()
	ours, theirs := bothUmocis(t)
	for _, p := range []program{ours, theirs} {
		p.shell(p.dir, `mkdir -p tree/dir/sub tree/vol; echo 1 >tree/plain; echo 1 >tree/dir/sub/file; echo 1 >tree/vol/was
			ln -s ../plain tree/dir/link; ln tree/dir/sub/file tree/dir/hard; find tree -exec touch -h -d 2001-01-01 {} +`)
		for _, line := range []string{"init --layout l", "new --image l:base", "insert --image l:base tree /", "config --image l:base --config.volume /vol"} {
			p.must(strings.Fields(line)...)
		}
	}
	for i, c := range umociChanges {
		bundle, tag := fmt.Sprint("b", i), fmt.Sprint("l:", i)
		layers := make([][]string, 2)
		for which, p := range []program{ours, theirs} {
			p.must("unpack", "--image", "l:base", bundle)
			p.shell(filepath.Join(p.dir, bundle, "rootfs"), c.script)
			p.must(append(strings.Fields("repack --image "+tag+" "+c.flags), bundle)...)
			layers[which] = p.lastLayer(tag)
		}
		if diff := cmp.Diff(layers[1], layers[0]); diff != "" {
			t.Errorf("%s: -theirs +ours:\n%s", c.name, diff)
		}
	}
}

func (p program) must(args ...string) string {
	p.t.Helper()
	out, status := p.run(args...)
	if status != 0 {
		p.t.Fatalf("%s %v: status %d", p.path, args, status)
	}
	return out
}

// shell runs a script and returns what it writes.
func (p program) shell(dir, script string) string {
	p.t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// lastLayer lists what is in the layer of an image's last step, without order and times, which are the program's own affair.
func (p program) lastLayer(ref string) []string {
	p.t.Helper()
	var stat struct {
		History []struct {
			Layer *struct{ Digest string }
		}
	}
	if err := json.Unmarshal([]byte(p.must("stat", "--json", "--image", ref)), &stat); err != nil {
		p.t.Fatal(err)
	}
	last := stat.History[len(stat.History)-1].Layer
	if last == nil {
		return []string{"no layer"}
	}
	f, err := os.Open(filepath.Join(p.dir, "l/blobs", strings.Replace(last.Digest, ":", "/", 1)))
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		p.t.Fatal(err)
	}
	return entriesOf(p.t, tar.NewReader(z))
}

func entriesOf(t *testing.T, r *tar.Reader) []string {
	t.Helper()
	var list []string
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			slices.Sort(list)
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%q %c %o %d:%d -> %q %d,%d %q", filepath.Clean(h.Name), h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, h.Devmajor, h.Devminor, data)
		for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
			if attr, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
				line += fmt.Sprintf(" %s=%q", attr, h.PAXRecords[key])
			}
		}
		list = append(list, line)
	}
}

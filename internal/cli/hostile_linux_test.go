package cli_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
)

// A way is what users can do with an image that somebody else made.
type way struct {
	name string
	// get and undo are shell commands about the image %s. get takes limits in
	// $limit; if tree is not empty there is its tree afterwards.
	get, undo, tree string
	overlay         bool // each layer is unpacked on its own
	rootless        bool // owners and devices are not made
	namespace       bool // it is tried in a user namespace
}

const (
	unpackWay = `hcs image unpack $limit --image "$layout:%s" `
	forget    = `{ chmod -R u+rwx b && rm -rf b; }`
)

var ways = []way{
	{name: "bundle", get: unpackWay + "b", undo: forget, tree: "b/rootfs"},
	{name: "rootless bundle", get: unpackWay + "--rootless b", undo: forget, tree: "b/rootfs", rootless: true},
	{name: "tree", get: `hcs image raw unpack $limit --image "$layout:%s" b`, undo: forget, tree: "b"},
	{name: "mounted bundle", get: unpackWay + "--mount b", undo: "hcs image unmount b", tree: "b/rootfs", overlay: true},
	{name: "store", get: `hcs image load -q $limit --name hostile "oci:$layout:%s"`, undo: "hcs image rm hostile", overlay: true},
}

// TestHostileImages has every hostile layer in an image, and gets at each in
// all the ways that there are, as root, as an ordinary user, and as root of his
// user namespace.
func TestHostileImages(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.Programs(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	vectors, err := layertest.Vectors()
	if err != nil {
		t.Fatal(err)
	}
	layout := hostileLayout(t, vectors)
	root := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: root})
	u := testenv.NewUser(t, testenv.ManyIDs)
	testenv.NoLeaks(t, testenv.Scope{Dir: u.Home})
	t.Run("ways", func(t *testing.T) {
		for _, w := range ways {
			w.as(t, "root", filepath.Join(root, w.name), vectors, func(env []string, script string) *exec.Cmd {
				cmd := exec.Command("sh", "-c", script, "sh", layout)
				cmd.Env = append(os.Environ(), env...)
				return cmd
			})
			if w.rootless || w.tree == "" { // he cannot give files to others, nor keep a mount
				w.as(t, "user", filepath.Join(u.Home, w.name), vectors, func(env []string, script string) *exec.Cmd {
					return u.Command(env, "sh", "-c", script, "sh", layout)
				})
			}
			w.namespace = true
			w.as(t, "user namespace", filepath.Join(u.Home, "inside "+w.name), vectors, func(env []string, script string) *exec.Cmd {
				return u.Command(env, "hcs", "unshare", "sh", "-c", script, "sh", layout)
			})
		}
	})
}

// as tries the way as somebody, in a directory of its own.
func (w way) as(t *testing.T, who, dir string, vectors []layertest.Vector, command func(env []string, script string) *exec.Cmd) {
	t.Helper()
	env := []string{"HCS_ROOT=" + dir + "/root", "HCS_RUN=" + dir + "/run"}
	t.Run(who+"/"+w.name, func(t *testing.T) {
		t.Parallel()
		w.attack(t, vectors, dir+"/cage", func(script string) *exec.Cmd { return command(env, script) })
	})
}

// hostileLayout returns a layout with an image of each vector, called v and its
// number, that everybody can read.
func hostileLayout(t *testing.T, vectors []layertest.Vector) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := image.CreateLayout(t.Context(), dir)
	must(err)
	for i, v := range vectors {
		tag := fmt.Sprint("v", i)
		img, err := l.New(t.Context(), tag, v1.Image{})
		must(err)
		e, err := l.Edit(t.Context(), img)
		must(err)
		for _, blob := range v.Layers {
			_, err := e.AddTar(t.Context(), layer.Gzip, bytes.NewReader(blob))
			must(err)
		}
		_, err = e.Commit(t.Context(), tag)
		must(err)
		e.Close()
	}
	out, err := exec.Command("chmod", "-R", "a+rX", filepath.Dir(filepath.Dir(dir))).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// attack gets at all images, from within a directory that has things around it
// which are nobody's to touch.
func (w way) attack(t *testing.T, vectors []layertest.Vector, cage string, command func(script string) *exec.Cmd) {
	t.Helper()
	setUp := fmt.Sprintf("set -e; cage=%s; mkdir -p \"$cage/up/in\"; cd \"$cage\"; ", quoted(cage)) +
		"for d in . up; do mkdir -m 751 $d/canarydir; for f in canary canarydir/x canarydir/passwd passwd; do echo outside >$d/$f; done; done"
	if out, err := command(setUp).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	before := surroundings(t, cage)
	var script strings.Builder
	script.WriteString("layout=$1; cd " + quoted(cage+"/up/in") + "\n")
	for i, v := range vectors {
		script.WriteString(w.try(fmt.Sprint("v", i), v))
	}
	out, err := command(script.String()).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if after := surroundings(t, cage); !maps.Equal(after, before) {
		t.Errorf("around it is\n%v\nwas\n%v", after, before)
	}
	w.judge(t, vectors, string(out))
	if out, err := command("hcs system prune -f && rm -rf " + quoted(filepath.Dir(cage))).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// try is the script for one image. It writes lines that begin with the tag:
// "ok", or "failed" and why; and what is wrong.
func (w way) try(tag string, v layertest.Vector) string {
	var s strings.Builder
	var limits []string
	for _, field := range slices.Sorted(maps.Keys(v.Limits)) {
		limits = append(limits, fmt.Sprintf("--limit %s=%d", flagOfLimit(field), v.Limits[field]))
	}
	fmt.Fprintf(&s, "limit='%s'; if "+w.get+" 2>../../err >&2; then echo %[2]s ok\n", strings.Join(limits, " "), tag)
	if w.tree != "" {
		for _, o := range v.Tree {
			s.WriteString(w.look(tag, o))
		}
		for _, name := range v.Gone {
			at := quoted(w.tree + "/" + name)
			fmt.Fprintf(&s, "if test -e %s || test -L %[1]s; then echo %s wrong: %s is there; fi\n", at, tag, quoted(fmt.Sprintf("%q", name)))
		}
	}
	fmt.Fprintf(&s, "%s 2>../../err >&2 || echo %s wrong: undo: $(cat ../../err)\n", w.undo, tag)
	fmt.Fprintf(&s, "else echo %s failed: $(cat ../../err); test $(wc -l <../../err) = 1 || echo %[1]s wrong: more than a line; fi\n", tag)
	fmt.Fprintf(&s, "test -z \"$(ls -A)\" || { echo %s wrong: left $(ls -A); %s; }\n", tag, forget)
	return s.String()
}

// look holds an object against what is there.
func (w way) look(tag string, o layertest.Object) string {
	letter := map[string]string{"file": "f", "dir": "d", "symlink": "l", "char": "c", "block": "b", "fifo": "p"}[o.Kind]
	if w.rootless && (letter == "c" || letter == "b") {
		letter = "f"
	}
	at := quoted(w.tree + "/" + o.Name)
	test := fmt.Sprintf(`test "$(find %s -maxdepth 0 -printf %%y)" = %s`, at, letter)
	switch {
	case o.Kind == "symlink":
		test += fmt.Sprintf(` && test "$(readlink %s)" = %s`, at, quoted(o.Link))
	case o.Kind == "file" && o.Content != "":
		test += fmt.Sprintf(` && test "$(cat %s)" = %s`, at, quoted(strings.TrimRight(o.Content, "\n")))
	}
	return fmt.Sprintf("{ %s; } || echo %s wrong: %s is not as it should\n", test, tag, quoted(fmt.Sprintf("%q", o.Name)))
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// flagOfLimit is what the flag --limit calls a field of layer.Limits.
func flagOfLimit(field string) string {
	var s strings.Builder
	for i, r := range field {
		if i > 0 && r < 'a' {
			s.WriteByte('-')
		}
		s.WriteRune(r)
	}
	return strings.ToLower(s.String())
}

// judge reads what the scripts wrote.
func (w way) judge(t *testing.T, vectors []layertest.Vector, out string) {
	t.Helper()
	ended := map[string]string{}
	for line := range strings.Lines(out) {
		tag, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(what, "wrong") || ended[tag] != "" {
			t.Errorf("%s: %s", w.name, line)
			continue
		}
		ended[tag] = what
	}
	for i, v := range vectors {
		got := ended[fmt.Sprint("v", i)]
		failed := strings.HasPrefix(got, "failed")
		switch {
		case got == "":
			t.Errorf("%s/%s: no outcome", v.File, v.Name)
		case v.Apply == "either", failed == (v.Apply == "error"):
		case failed && w.overlay && (len(v.Layers) > 1 || strings.Contains(got, "would be a whiteout")): // it needs those below
		case failed && w.namespace && !w.overlay && strings.Contains(got, "set extended attribute trusted."): // nobody may there
		case !failed && w.rootless: // what is wrong is not made
		default:
			t.Errorf("%s/%s %s: %s, want %s", v.File, v.Name, v.About, got, v.Apply)
		}
	}
}

// surroundings describes what is around the directory that attacks are in.
func surroundings(t *testing.T, cage string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(cage, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name = strings.TrimPrefix(name, cage)
		switch {
		case name == "/up/in":
			return filepath.SkipDir
		case name == "/err" || name == "": // where the script keeps what programs say
			return nil
		}
		st := info.Sys().(*syscall.Stat_t)
		all[name] = fmt.Sprint(info.Mode(), info.ModTime(), st.Uid, st.Gid, st.Nlink, " ")
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(cage + name)
			all[name] += string(content)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/internal/testenv"
)

// TestRootlessBundles unpacks, changes and repacks an image as an ordinary user: as what he is, and as root of his user
// namespace.
func TestRootlessBundles(t *testing.T) {
	for name, ids := range map[string]testenv.SubIDs{"one id": testenv.OneID, "many ids": testenv.ManyIDs} {
		t.Run(name, func(t *testing.T) {
			o := &ordinary{t: t, user: testenv.NewUser(t, ids)}
			o.shell("cp -r '" + testenv.Image(t, "busybox") + "' layout")
			o.bundle("hcs image unpack --rootless", "user")
			o.shell("hcs image unpack --rootless --image layout:user again && test x$(cat again/rootfs/new) = xnew && test ! -e again/rootfs/bin/true")
			o.bundle("hcs unshare hcs image unpack --rootless", "inside")
			o.shell("hcs unshare sh -ec '" + mountedBundle + "'")
			if ids == testenv.ManyIDs {
				o.bundle("hcs unshare hcs image unpack", "mapped")
				o.shell("hcs unshare chown 7:8 mapped/rootfs/new && hcs unshare hcs image repack --image layout:owned mapped")
				o.shell("hcs unshare hcs image unpack --image layout:owned owned")
				o.gives("7:8", 0, "unshare", "stat", "-c", "%u:%g", "owned/rootfs/new")
				o.shell("hcs unshare rm -rf owned")
				o.shell("hcs unshare rm -rf mapped")
			}
			left := o.shell("ls -A")
			if strings.Contains(left, ".hcs-unpack") {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}

// mountedBundle is for root of a user namespace, in which the mount stays: it
// makes a directory anew, which overlayfs marks, and looks at it in the image.
const mountedBundle = `
hcs image unpack --mount --image layout:latest m
rm -r m/rootfs/bin && mkdir m/rootfs/bin && echo new >m/rootfs/bin/new
hcs image repack --image layout:mounted m
hcs image unmount m
test ! -e m
hcs image unpack --rootless --image layout:mounted m
test "$(ls m/rootfs/bin)" = new
rm -rf m
`

// bundle unpacks with the command, and repacks without and with changes.
func (o *ordinary) bundle(unpack, dir string) {
	o.t.Helper()
	root, _, _ := strings.Cut(unpack, "hcs image unpack") // owners are seen as who unpacks sees them
	o.shell(unpack + " --image layout:latest " + dir)
	repack := root + "hcs image repack --image layout:" + dir + " " + dir
	o.shell(repack)
	before, after := o.layers("latest"), o.layers(dir)
	if before == "" || after != before {
		o.t.Errorf("%s: repacking without a change makes of\n%s\nthese layers:\n%s", unpack, before, after)
	}
	in := filepath.Join(dir, "rootfs")
	o.shell(root + "sh -c 'echo new >" + in + "/new && rm " + in + "/bin/true'")
	o.shell(repack)
	if now := o.layers(dir); !strings.HasPrefix(now, before) || strings.Count(now, "\n") != strings.Count(before, "\n")+1 {
		o.t.Errorf("%s: repacking makes of\n%s\nthese layers:\n%s", unpack, before, now)
	}
}

// layers lists the digests of an image's layers.
func (o *ordinary) layers(tag string) string {
	o.t.Helper()
	var list strings.Builder
	for line := range strings.Lines(o.shell("hcs image stat --image layout:" + tag)) {
		if strings.HasPrefix(line, "sha256:") {
			list.WriteString(strings.Fields(line)[0] + "\n")
		}
	}
	return list.String()
}

// shell runs a script as the user and returns what it writes.
func (o *ordinary) shell(script string) string {
	o.t.Helper()
	out, err := o.user.Command(o.env, "sh", "-c", script).CombinedOutput()
	if err != nil {
		o.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// TestRootlessWindowsBundles is for images for Windows, which have no owners: nothing has to be asked for.
func TestRootlessWindowsBundles(t *testing.T) {
	o := &ordinary{t: t, user: testenv.NewUser(t, testenv.OneID)}
	o.windowsLayout()
	for _, unpack := range []string{"hcs image unpack", "hcs image unpack --rootless"} {
		o.shell(unpack + " --image layout:three web && hcs image repack --image layout:same web")
		if before, after := o.layers("three"), o.layers("same"); before == "" || after != before {
			t.Errorf("%s: repacking without a change makes of\n%s\nthese layers:\n%s", unpack, before, after)
		}
		o.shell("echo new >web/rootfs/app/new && chmod a-w web/rootfs/app/app.exe && hcs image repack --image layout:new web && rm -rf web")
		want := "M /Files/app (time)\nM /Files/app/app.exe (attributes archive -> readonly|archive)\nA /Files/app/new\n"
		if diff := o.shell("hcs image diff oci:layout:three oci:layout:new"); diff != want {
			t.Errorf("%s: what is new is\n%s", unpack, diff)
		}
	}
	if _, err := o.user.Command(nil, "hcs", "image", "unpack", "--uid-map", "0:5:1", "--image", "layout:three", "web").CombinedOutput(); err == nil {
		t.Error("owners are mapped")
	}
}

// TestRootlessWindowsMounts mounts layers, and an image as a bundle, as root of the user's namespace: as the user himself he
// cannot.
func TestRootlessWindowsMounts(t *testing.T) {
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	for name, ids := range map[string]testenv.SubIDs{"one id": testenv.OneID, "many ids": testenv.ManyIDs} {
		t.Run(name, func(t *testing.T) {
			o := &ordinary{t: t, user: testenv.NewUser(t, ids)}
			o.windowsLayout()
			o.shell("hcs layer import -i oci:layout:three#1 base && hcs layer import -l base -i oci:layout:three#2 app && hcs layer import -l app -i oci:layout:three#3 top")
			o.fails(`mount layer top: only root can do that, or a shell of "hcs unshare"`, "layer", "mount", "top")
			o.fails(`mount image as bundle web: only root can do that, or a shell of "hcs unshare"`, "image", "unpack", "--mount", "--image", "layout:three", "web")
			want := o.shell("hcs image raw unpack --image layout:three plain && cd plain && find . | sort")
			got := o.shell("hcs unshare sh -c 'hcs layer mount top >where && cd top/root && find . | sort && cd ../.. && hcs layer unmount top'")
			if got != want || want == "" {
				t.Errorf("the mounted layers have\n%s\nthe image\n%s", got, want)
			}
			o.shell(`hcs layer create -l top scratch && hcs unshare sh -c '
				hcs layer mount scratch && echo new >scratch/root/app/new && rm scratch/root/Windows/hidden.sys && hcs layer unmount scratch'`)
			change := "Files/Windows/hidden.sys Files/app/new "
			if got := o.shell("hcs layer tree scratch | grep -E '^(file|whiteout)' | sed 's/.* //' | tr '\n' ' '"); got != change {
				t.Errorf("written: %s", got)
			}
			o.shell(`hcs unshare sh -ec '
				hcs image unpack --mount --image layout:three web
				(cd web/rootfs && find . | sort) >list
				echo new >web/rootfs/app/new
				rm web/rootfs/Windows/hidden.sys
				hcs image repack --image layout:changed web
				hcs image unmount web
				test ! -e web'`)
			if got := o.shell("cat list"); got != want {
				t.Errorf("the mounted bundle has\n%s\nthe image\n%s", got, want)
			}
			diff := "M /Files/Windows (time)\nD /Files/Windows/hidden.sys\nM /Files/app (time)\nA /Files/app/new\n"
			if got := o.shell("hcs image diff oci:layout:three oci:layout:changed | sort -k2"); got != diff {
				t.Errorf("what is new is\n%s", got)
			}
			o.shell("hcs layer remove scratch top app base && chmod -R u+w plain && rm -r plain")
		})
	}
}

// TestRootlessOnRootsLayer has a layer that root has imported, which an ordinary user reads, but cannot write on.
func TestRootlessOnRootsLayer(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.Overlay)
	for name, ids := range map[string]testenv.SubIDs{"one id": testenv.OneID, "many ids": testenv.ManyIDs} {
		t.Run(name, func(t *testing.T) {
			o := &ordinary{t: t, user: testenv.NewUser(t, ids)}
			o.windowsLayout()
			base := filepath.Join(filepath.Dir(o.user.Home), "base")
			hcs := filepath.Join(testenv.Programs(t), "hcs")
			cmd := exec.Command("sh", "-c", `"$1" layer import -i "$2" "$3" && chmod -R a+rX "$3"`, "sh",
				hcs, "oci:"+o.user.Home+"/layout:three#1", base)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			o.ok("layer", "export", "--flatten", "-o", "flat.tar", base)
			o.ok("layer", "create", "-l", base, "mine")
			o.fails("layer "+base+" was imported by root, on whose layers only root writes: import it yourself", "unshare", "hcs", "layer", "mount", "mine")
			o.ok("unshare", "hcs", "layer", "remove", "mine")
		})
	}
}

// TestRootlessVolume makes a disk with an NTFS volume as an ordinary user, who can where ntfs-3g is setuid root: nothing
// stays mounted.
func TestRootlessVolume(t *testing.T) {
	testenv.NeedRoot(t) // to be an ordinary user whose setuid programs work, which whoever runs the tests may not be
	testenv.NeedCommand(t, "mkntfs", "ntfs-3g")
	o := &ordinary{t: t, user: testenv.NewUser(t, testenv.OneID)}
	o.windowsLayout()
	out, err := o.user.Command([]string{"TMPDIR=" + o.user.Home}, "hcs", "layer", "export", "--flatten", "--format", "vhdx", "--size", "64m", "-o", "three.vhdx", "oci:layout:three#3").CombinedOutput()
	program, lookErr := exec.LookPath("ntfs-3g")
	if lookErr != nil {
		t.Fatal(lookErr)
	}
	info, statErr := os.Stat(program)
	if statErr != nil {
		t.Fatal(statErr)
	}
	if info.Mode()&os.ModeSetuid != 0 && err != nil {
		t.Errorf("make a disk: %v\n%s", err, out)
	}
	for name := range strings.FieldsSeq(o.shell("ls -A")) {
		if name != "layout" && name != "three.vhdx" {
			t.Errorf("left behind: %s", name)
		}
	}
}

// windowsLayout gives the user a layout with an image of three layers.
func (o *ordinary) windowsLayout() {
	o.t.Helper()
	dir := filepath.Join(o.t.TempDir(), "layout")
	windowsLayout(o.t, dir)
	if out, err := exec.Command("chmod", "-R", "a+rX", dir).CombinedOutput(); err != nil {
		o.t.Fatalf("%v\n%s", err, out)
	}
	o.shell("cp -r '" + dir + "' layout")
}

package container_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/disk"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
)

// ext4Image makes an image with a file system that has room for size bytes.
func (f *fixture) ext4Image(size int64) string {
	f.t.Helper()
	mkfs := testenv.NeedCommand(f.t, "mkfs.ext4")[0]
	name := filepath.Join(f.t.TempDir(), "disk.img")
	f.must(os.WriteFile(name, nil, 0o600))
	f.must(os.Truncate(name, size))
	if out, err := exec.Command(mkfs, "-q", "-F", name).CombinedOutput(); err != nil {
		f.t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	return name
}

// fixedVHD makes a VHD of an image.
func (f *fixture) fixedVHD(raw string) string {
	f.t.Helper()
	content, err := os.ReadFile(raw)
	f.must(err)
	name := strings.TrimSuffix(raw, ".img") + ".vhd"
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	f.must(err)
	defer file.Close()
	d, err := disk.Create(file, disk.Options{Format: disk.FixedVHD, Size: int64(len(content))})
	f.must(err)
	_, err = d.WriteAt(content, 0)
	f.must(err)
	f.must(d.Close())
	return name
}

func TestDisks(t *testing.T) {
	testenv.NeedKernel(t, testenv.LoopDevices)
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		raw := f.ext4Image(8 << 20)
		vhd := f.fixedVHD(f.ext4Image(8 << 20))
		s := f.running(container.Spec{Disks: []container.Disk{{Source: raw, Target: "/disks/raw"}, {Source: vhd, Target: "/vhd", ReadOnly: true}}})
		f.ok(s, "[ -d /disks/raw/lost+found ] && [ -d /vhd/lost+found ] && echo kept >/disks/raw/file && ! (: >/vhd/file) 2>/dev/null")
		f.ok(s, "! head -c 20000000 /dev/zero >/disks/raw/big 2>/dev/null; rm /disks/raw/big") // the image is its limit
		f.ok(s, "mknod /disks/raw/node c 1 3 && ! (: </disks/raw/node) 2>/dev/null")
		// While it runs.
		third := f.ext4Image(8 << 20)
		f.must(s.Modify(ctx, container.Change{RemoveDisks: []string{"/vhd"}, AddDisks: []container.Disk{{Source: third, Target: "/third"}}}))
		f.ok(s, "! [ -d /vhd/lost+found ] && echo third >/third/file")
		f.must(s.Terminate(ctx))
		f.must(s.Start(ctx))
		f.ok(s, "grep -q kept /disks/raw/file && grep -q third /third/file && ! [ -d /vhd/lost+found ]")
		// Nobody lets go of the loop devices but the kernel.
		st, err := s.Status(ctx)
		f.must(err)
		f.must(syscall.Kill(st.ShimPid, syscall.SIGKILL))
		f.gone(st.ShimPid)
		f.must(s.Start(ctx))
		f.ok(s, "grep -q third /third/file")
		f.must(s.Terminate(ctx))
		f.must(s.Delete(ctx))
	})
}

// TestShimMounts sees that a shim has mounts of its own where it mounts anything, and only there: else what the host unmounts
// while a system runs is not busy any more.
func TestShimMounts(t *testing.T) {
	testenv.NeedKernel(t, testenv.LoopDevices)
	mountsOf := func(pid int) string {
		name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	eachRuntime(t, func(t *testing.T, f *fixture) {
		const native = "native"
		disk := container.Disk{Source: f.ext4Image(8 << 20), Target: "/disk"}
		for _, tt := range []struct {
			name string
			spec container.Spec
			own  bool
		}{
			{"disk", container.Spec{Disks: []container.Disk{disk}}, true},
			{"ids", container.Spec{IDs: container.IDs{First: 100000, Size: 65536}}, true},
			{"nothing", container.Spec{}, f.config.Runtime != native},
		} {
			if tt.name == "ids" && f.config.Runtime != native {
				continue // they do not take that
			}
			st, err := f.running(tt.spec).Status(t.Context())
			f.must(err)
			if own := mountsOf(st.ShimPid) != mountsOf(os.Getpid()); own != tt.own {
				t.Errorf("%s: the shim has mounts of its own: %t", tt.name, own)
			}
		}
		if f.config.Runtime != native {
			return
		}
		image, dir := f.ext4Image(8<<20), t.TempDir()
		f.must(sys.MountImage(image, "ext4", dir))
		t.Cleanup(func() { _ = sys.Unmount(dir) })
		f.must(syscall.Mount("", dir, "", syscall.MS_PRIVATE, "")) // so that nobody is told when it goes
		s := f.running(container.Spec{})
		f.must(sys.Unmount(dir))
		again, err := sys.NewImage(sys.Image{Path: image, Type: "ext4"}, 0, nil)
		if err != nil {
			t.Errorf("what the host has unmounted is busy: %v", err)
		} else {
			f.check(again.Close())
		}
		f.ok(s, "true")
	})
}

// TestDiskInUse has a system's image mounted by others, as they start and while they run, and in the tree of one that does not.
func TestDiskInUse(t *testing.T) {
	testenv.NeedKernel(t, testenv.LoopDevices)
	f := newFixture(t)
	ctx := t.Context()
	image := f.ext4Image(8 << 20)
	write := container.Disk{Source: image, Target: "/disk"}
	read := container.Disk{Source: image, Target: "/disk", ReadOnly: true}
	first := f.running(container.Spec{Disks: []container.Disk{write}})
	f.ok(first, "echo text >/disk/file")
	other := f.running(container.Spec{})
	writer, reader, stopped := f.created(container.Spec{Disks: []container.Disk{write}}),
		f.created(container.Spec{Disks: []container.Disk{read}}), f.created(container.Spec{Disks: []container.Disk{write}})
	var all sync.WaitGroup
	for what, call := range map[string]func() error{
		"writes": func() error { return writer.Start(ctx) },
		"reads":  func() error { return reader.Start(ctx) },
		"runs":   func() error { return other.Modify(ctx, container.Change{AddDisks: []container.Disk{write}}) },
	} {
		all.Go(func() {
			if err := call(); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), image) {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	all.Go(func() {
		if tree, err := stopped.OpenTree(ctx); !errdefs.IsUnavailable(err) {
			t.Errorf("shows its files: %v", err)
			if err == nil {
				f.check(tree.Close())
			}
		}
	})
	all.Wait()
	f.ok(first, "grep -q text /disk/file && echo more >>/disk/file")
	moved := container.Disk{Source: image, Target: "/moved"}
	err := first.Modify(ctx, container.Change{RemoveDisks: []string{"/disk"}, AddDisks: []container.Disk{moved}})
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "its image is at /disk") {
		t.Errorf("moved at once: %v", err)
	}
	f.must(first.Modify(ctx, container.Change{RemoveDisks: []string{"/disk"}}))
	f.must(first.Modify(ctx, container.Change{AddDisks: []container.Disk{moved}}))
	f.ok(first, "grep -q more /moved/file")
	f.must(first.Terminate(ctx))
	f.must(first.Modify(ctx, container.Change{RemoveDisks: []string{"/moved"}, AddDisks: []container.Disk{write}})) // while it does not run
	f.must(other.Modify(ctx, container.Change{AddDisks: []container.Disk{read}}))
	third := f.running(container.Spec{Disks: []container.Disk{read}})
	f.ok(third, "grep -q more /disk/file")
	f.ok(other, "grep -q more /disk/file")
	if err := first.Start(ctx); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("writes what others read: %v", err)
	}
}

func TestDisksRefused(t *testing.T) {
	f := newFixture(t)
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.img")
	f.must(os.WriteFile(empty, make([]byte, 1<<20), 0o600))
	dynamic, err := os.Create(filepath.Join(dir, "dynamic.vhd"))
	f.must(err)
	d, err := disk.Create(dynamic, disk.Options{Format: disk.DynamicVHD, Size: 4 << 20})
	f.must(err)
	f.must(d.Close())
	f.must(dynamic.Close())
	for _, tt := range []struct {
		name string
		disk container.Disk
		is   func(error) bool
		want string
	}{
		{"none", container.Disk{Source: dir + "/none", Target: "/d"}, errdefs.IsNotFound, "none"},
		{"a directory", container.Disk{Source: dir, Target: "/d"}, errdefs.IsInvalidArgument, "not a regular file"},
		{"no file system", container.Disk{Source: empty, Target: "/d"}, errdefs.IsNotImplemented, "ext4, xfs and erofs"},
		{"dynamic", container.Disk{Source: dynamic.Name(), Target: "/d"}, errdefs.IsNotImplemented, "vhd-dynamic"},
		{"the root", container.Disk{Source: empty, Target: "/"}, errdefs.IsInvalidArgument, "other than /"},
		{"proc", container.Disk{Source: empty, Target: "/proc"}, errdefs.IsInvalidArgument, "/proc"},
	} {
		_, err := f.Create(t.Context(), container.Spec{Layers: f.layers, Disks: []container.Disk{tt.disk}})
		if !tt.is(err) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// listenerRole is set for this test's own program where it is to print what a
// socket, its value, says.
const listenerRole = "HCS_TEST_LISTENER"

func listen() error {
	c, err := net.Dial("unix", os.Getenv(listenerRole))
	if err == nil {
		_, err = io.Copy(os.Stdout, c)
	}
	return err
}

// TestSockets has a program of the host's answer at a socket in the system:
// what the Host Compute System calls a mapped pipe.
func TestSockets(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		dir := t.TempDir()
		var names []string
		for _, name := range []string{"first", "second"} {
			l, err := net.Listen("unix", filepath.Join(dir, name))
			f.must(err)
			t.Cleanup(func() { l.Close() })
			names = append(names, l.Addr().String())
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = c.Write([]byte("hello from " + name + "\n"))
					_ = c.Close()
				}
			}()
		}
		self, err := os.Executable()
		f.must(err)
		s := f.running(container.Spec{Mounts: append(libraries(),
			container.Mount{Source: self, Target: "/opt/listen", ReadOnly: true}, container.Mount{Source: names[0], Target: "/run/host.sock"})})
		f.must(s.Modify(t.Context(), container.Change{AddMounts: []container.Mount{{Source: names[1], Target: "/run/later.sock"}}}))
		for target, want := range map[string]string{"/run/host.sock": "hello from first", "/run/later.sock": "hello from second"} {
			got := f.ok(s, "exec /opt/listen", func(p *container.ProcessSpec) { p.Env = append(slices.Clone(p.Env), listenerRole+"="+target) })
			if got != want {
				t.Errorf("%s: %q", target, got)
			}
		}
	})
}

func TestDNS(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		spec := container.Spec{Hostname: "web", DNS: container.DNS{
			Servers: []string{"192.0.2.1", "2001:db8::1"}, Search: []string{"example.org", "example.net"}, Options: []string{"ndots:2"},
		}}
		const want = "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch example.org example.net\noptions ndots:2"
		for _, network := range []container.Network{container.NetworkNone, container.NetworkHost} {
			spec.Network = network
			s := f.running(spec)
			if got := f.ok(s, "cat /etc/resolv.conf", user("1000:1000")); got != want {
				t.Errorf("got %q", got)
			}
			f.ok(s, "! echo nameserver 192.0.2.9 >/etc/resolv.conf")
			if got := f.ok(s, "hostname"); got != "web" {
				t.Errorf("host name %q", got)
			}
			f.must(s.Terminate(ctx))
			f.must(s.Start(ctx))
			if got := f.ok(s, "cat /etc/resolv.conf"); got != want {
				t.Errorf("started anew: %q", got)
			}
		}
	})
}

func TestDNSRefused(t *testing.T) {
	f := newFixture(t)
	for _, spec := range []container.Spec{
		{DNS: container.DNS{Servers: []string{"dns.example.org"}}},
		{DNS: container.DNS{Search: []string{"a b"}}},
		{DNS: container.DNS{Options: []string{"ndots:1\nnameserver 192.0.2.1"}}},
		{DNS: container.DNS{Search: []string{"a"}}, Mounts: []container.Mount{{Source: "/etc/hosts", Target: "/etc/resolv.conf"}}},
	} {
		spec.Layers = f.layers
		if _, err := f.Create(t.Context(), spec); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", spec.DNS, err)
		}
	}
}

func TestHosts(t *testing.T) {
	host, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	const own = "192.0.2.1\tdb\n2001:db8::1\tdb"
	eachRuntime(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		for _, tt := range []struct {
			spec  container.Spec
			begin string
		}{
			{container.Spec{}, "127.0.0.1\tlocalhost\n::1\tlocalhost "},
			{container.Spec{IDs: container.AutoIDs}, "127.0.0.1\tlocalhost\n"},
			{container.Spec{ReadOnly: true}, "127.0.0.1\tlocalhost\n"},
			{container.Spec{Network: container.NetworkHost}, strings.TrimRight(string(host), "\n") + "\n"},
		} {
			if f.config.Runtime != "native" && tt.spec.IDs != (container.IDs{}) {
				continue // such ids are the native starter's
			}
			tt.spec.Hosts = []container.Host{{Name: "db", Address: "192.0.2.1"}, {Name: "db", Address: "2001:db8::1"}}
			s := f.running(tt.spec)
			for range 2 {
				got := f.ok(s, "cat /etc/hosts", user("1000:1000"))
				if !strings.HasPrefix(got, tt.begin) || !strings.HasSuffix(got, "\n"+own) {
					t.Errorf("%+v: got %q", tt.spec, got)
				}
				f.ok(s, "! echo 192.0.2.9 other >/etc/hosts")
				f.must(s.Terminate(ctx))
				f.must(s.Start(ctx))
			}
		}
	})
}

// TestCredentials looks for them where a program in the system could.
func TestCredentials(t *testing.T) {
	f := newFixture(t)
	const secret = "a-secret-of-the-domain"
	s := f.running(container.Spec{Credentials: secret})
	if got := s.Record().Spec.Credentials; got != secret {
		t.Errorf("kept %q", got)
	}
	if r := f.run(s, "env; cat /proc/1/environ /proc/1/cmdline /proc/self/environ; grep -r "+secret+" /etc /run /tmp /dev/shm"); strings.Contains(r.out, secret) {
		t.Errorf("got %q", r.out)
	}
	f.must(filepath.WalkDir(f.config.Run, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte(secret)) {
			t.Errorf("it is in %s", path)
		}
		return nil
	}))
}

func TestCheckpoint(t *testing.T) {
	f := newFixture(t)
	s := f.created(container.Spec{Name: "web"})
	if err := s.Checkpoint(t.Context(), t.TempDir()); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "checkpoint container web") {
		t.Errorf("got %v", err)
	}
}

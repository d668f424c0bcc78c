package rootfs_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// TestNTScratchUser reads an upper directory as overlayfs leaves it that an ordinary user has mounted: its marks and Windows'
// metadata are in attributes of users.
func TestNTScratchUser(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	base, upper := filepath.Join(top, "base"), filepath.Join(top, "upper")
	named := file("Files/a.txt:s", "stream")
	named.Format = tar.FormatPAX
	stream := tarOf(t, nt(dir("Files"), "MSWINDOWS.rawsd", sddl(t, topSD)), nt(file("Files/a.txt", "a"), "MSWINDOWS.rawsd", sddl(t, fileSD)), named,
		nt(file("Files/gone", "g")), nt(dir("Files/sub"), "MSWINDOWS.rawsd", sddl(t, topSD)), nt(file("Files/sub/hidden", "h")),
		nt(tar.Header{Name: "Files/link", Typeflag: tar.TypeSymlink, Linkname: "a.txt"}),
		nt(dir("Hives"), "MSWINDOWS.rawsd", sddl(t, topSD)))
	r := layer.ReadOptions{Encoding: layer.NT}.NewReader(bytes.NewReader(stream))
	_, err := rootfs.ImportNT(t.Context(), base, nil, r, rootfs.NTOptions{UserXattr: true, Owner: rootfs.IgnoreOwner})
	must(t, err)
	s := rootfs.NTScratch{Upper: upper, Parents: []string{base}}
	in := func(name string) string { return filepath.Join(upper, name) }
	must(t, errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(in("sub"), 0o755), os.Mkdir(in("new"), 0o755)))
	must(t, os.WriteFile(in("a.txt"), []byte("a, changed"), 0o644))
	must(t, os.WriteFile(in("gone"), nil, 0o644))
	must(t, os.WriteFile(in("new/b"), []byte("b"), 0o644))
	meta := make([]byte, 4096)
	n, err := syscall.Getxattr(base+"/Files/a.txt", "user.hcs.nt", meta)
	must(t, err)
	must(t, syscall.Setxattr(in("a.txt"), "user.hcs.nt", meta[:n], 0))
	must(t, syscall.Setxattr(in("gone"), "user.overlay.whiteout", []byte("y"), 0))
	must(t, syscall.Setxattr(in("sub"), "user.overlay.opaque", []byte("y"), 0))
	var got []string
	must(t, s.Diff(t.Context(), func(e *layer.Entry, content io.Reader) error {
		got = append(got, ntLine(t, e, content))
		return nil
	}))
	want := []string{
		"dir Files directory topSD", "whiteout Files/gone", `file Files/a.txt "a, changed" archive fileSD`, `stream Files/a.txt:s "stream"`,
		"dir Files/new directory madeDir", `file Files/new/b "b" archive madeFile`,
		"dir Files/sub directory madeDir", "whiteout Files/sub/hidden", "dir Hives directory topSD",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	must(t, syscall.Setxattr(in("new"), "user.overlay.redirect", []byte("/sub"), 0))
	if err := s.Diff(t.Context(), discard); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), `"Files/new"`) {
		t.Errorf("a directory that is somewhere else: %v", err)
	}
	must(t, syscall.Removexattr(in("new"), "user.overlay.redirect"))
	must(t, syscall.Setxattr(in("a.txt"), "user.hcs.nt", meta[:n-1], 0))
	if err := s.Diff(t.Context(), discard); !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), `"Files/a.txt"`) {
		t.Errorf("damaged metadata: %v", err)
	}
	stop := errors.New("stop")
	if err := s.Diff(t.Context(), func(*layer.Entry, io.Reader) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("nobody wants more: %v", err)
	}
	s.Parents = nil
	if err := s.Diff(t.Context(), discard); !errdefs.IsInvalidArgument(err) {
		t.Errorf("without layers below: %v", err)
	}
}

func discard(_ *layer.Entry, content io.Reader) error {
	if content == nil {
		return nil
	}
	_, err := io.Copy(io.Discard, content)
	return err
}

// TestNTScratchLimit fills a size-limited scratch layer, lets it grow while it is mounted, and reads it.
func TestNTScratchLimit(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedKernel(t, testenv.LoopDevices, testenv.MountAPI, testenv.Overlay)
	testenv.NeedCommand(t, "mkfs.xfs")
	layers := ntStack(t)
	top := t.TempDir()
	testenv.NoLeaks(t, testenv.Scope{Dir: top, Settles: true})
	v, err := rootfs.CreateVolume(t.Context(), filepath.Join(top, "scratch"))
	must(t, err)
	must(t, v.Grow(t.Context(), 1))
	must(t, v.Activate(t.Context()))
	must(t, v.PrepareNT(t.Context(), layers))
	big, err := os.Create(filepath.Join(v.Root(), "big"))
	must(t, err)
	piece := bytes.Repeat([]byte("x"), 4<<20)
	for err == nil {
		_, err = big.Write(piece)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the layer is full: %v", err)
	}
	must(t, big.Truncate(1<<20))
	must(t, v.Grow(t.Context(), 400<<20))
	if _, err := big.WriteAt(piece, 330<<20); err != nil {
		t.Errorf("after it grew: %v", err)
	}
	must(t, errors.Join(big.Truncate(3), big.Close(), write(v.Root()+"/a.txt", "+", 0)))
	got, err := ntDiff(t, v, layers, nil)
	must(t, err)
	want := []string{
		"dir Files directory topSD", `file Files/a.txt "a+" archive fileSD`, `stream Files/a.txt:Zone.Identifier "[ZoneTransfer]"`,
		`stream Files/a.txt:big "stream stream stream"`, `file Files/big "xxx" archive madeFile`, "dir Hives directory topSD",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	must(t, v.Deactivate(t.Context()))
}

// TestNTScratchKilled kills a process that mounts, writes and reads a scratch layer, wherever it is. The next one goes on, and
// nothing is there that was not before.
func TestNTScratchKilled(t *testing.T) {
	if dir := os.Getenv("HCS_TEST_NTSCRATCH"); dir != "" {
		v, err := rootfs.OpenVolume(dir)
		must(t, err)
		layers := filepath.SplitList(os.Getenv("HCS_TEST_LAYERS"))
		for {
			must(t, v.Activate(t.Context()))
			must(t, v.PrepareNT(t.Context(), layers))
			must(t, write(v.Root()+"/a.txt", "", 0))
			_, err := ntDiff(t, v, layers, nil)
			must(t, errors.Join(err, v.Deactivate(t.Context())))
			if _, err := os.Stdout.WriteString("."); err != nil {
				return
			}
		}
	}
	layers := ntStack(t)
	v := mountNT(t, layers)
	dir := filepath.Dir(v.Root())
	must(t, errors.Join(v.Unprepare(t.Context()), v.Deactivate(t.Context())))
	before := append(names(t, dir), names(t, filepath.Dir(layers[0]))...)
	for range 10 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestNTScratchKilled$")
		cmd.Env = append(os.Environ(), "HCS_TEST_NTSCRATCH="+dir, "HCS_TEST_LAYERS="+strings.Join(layers, string(filepath.ListSeparator)))
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		_, err = out.Read(make([]byte, 1))
		must(t, errors.Join(err, cmd.Process.Kill()))
		_ = cmd.Wait() // it was killed
		must(t, v.Activate(t.Context()))
		must(t, v.PrepareNT(t.Context(), layers))
		got, err := ntDiff(t, v, layers, nil)
		must(t, errors.Join(err, v.Deactivate(t.Context())))
		if len(got) != 5 || got[1] != `file Files/a.txt "a" archive fileSD` {
			t.Errorf("the layer has %q", got)
		}
		if after := append(names(t, dir), names(t, filepath.Dir(layers[0]))...); !slices.Equal(after, before) {
			t.Fatalf("there is %q, and was %q", after, before)
		}
	}
}

// TestNTStreamsFullDisk imports alternate streams to a disk that has no room for them: nothing stays.
func TestNTStreamsFullDisk(t *testing.T) {
	testenv.NeedRoot(t)
	named := file("Files/a:s", strings.Repeat("stream", 1<<20))
	named.Format = tar.FormatPAX
	top := t.TempDir()
	must(t, exec.Command(testenv.NeedCommand(t, "mount")[0], "-t", "tmpfs", "-o", "size=3m", "none", top).Run())
	defer func() { must(t, syscall.Unmount(top, 0)) }()
	_, err := importNT(t, filepath.Join(top, "layer"), nil, tarOf(t, nt(dir("Files")), nt(file("Files/a", "a")), named))
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("imported with %v", err)
	}
	if got := names(t, top); len(got) > 0 {
		t.Errorf("left behind: %q", got)
	}
}

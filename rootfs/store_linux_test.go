package rootfs_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/rootfs"
)

const childVar = "HCS_TEST_ROOTFS_CHILD"

// TestMain is also the program of the children that tests start.
func TestMain(m *testing.M) {
	if os.Getenv(childVar) != "" {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child unpacks the layer on its standard input into the store in its environment, and says on its standard output when
// the layer is opened, when it is half read and when it is done.
func child() error {
	s, err := rootfs.Open(rootfs.Config{Dir: os.Getenv(childVar), UserXattr: os.Geteuid() != 0})
	if err != nil {
		return err
	}
	half, err := strconv.Atoi(os.Getenv("HALF"))
	if err != nil {
		return err
	}
	_, err = s.Unpack(context.Background(), digest.Digest(os.Getenv("DIFFID")), func() (io.ReadCloser, error) {
		fmt.Println("opened")
		return io.NopCloser(&hookReader{r: os.Stdin, at: half, hook: func() { fmt.Println("half") }}), nil
	})
	if err == nil {
		fmt.Println("done")
	}
	return err
}

func childCommand(dir string, diffID digest.Digest, half int) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVar+"="+dir, "DIFFID="+diffID.String(), "HALF="+strconv.Itoa(half))
	return cmd
}

// someLayer is a layer of a few hundred files.
func someLayer(t testing.TB) ([]byte, digest.Digest) {
	t.Helper()
	headers := []tarHeader{dir(".")}
	for i := range 500 {
		headers = append(headers, file(fmt.Sprintf("d%d/f%d", i/50, i), strings.Repeat(fmt.Sprint(i), i)))
	}
	blob := tarOf(t, headers...)
	return blob, diffIDOf(blob)
}

func TestUnpack(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t)
	blob, diffID := someLayer(t)
	if _, err := s.Layer(diffID); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("layer before it is unpacked: %v", err)
	}
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	_, err := w.Write(blob)
	must(t, err)
	must(t, w.Close())
	l, err := s.Unpack(t.Context(), diffID, opener(compressed.Bytes()))
	must(t, err)
	again, err := s.Unpack(t.Context(), diffID, func() (io.ReadCloser, error) {
		t.Error("the blob is opened although the layer is there")
		return nil, io.EOF
	})
	must(t, err)
	if again.Path() != l.Path() || again.Entries() != 501 || again.Size() != l.Size() || again.DiffID() != diffID {
		t.Errorf("layer is %v, was %v", again, l)
	}
	if got := len(listing(t, l.Path(), view{})); got != 511 {
		t.Errorf("the layer has %d objects", got)
	}
	if info, err := os.Stat(filepath.Dir(l.Path())); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the layer's directory is %v, %v", info.Mode(), err)
	}
	all, err := s.Layers()
	if err != nil || len(all) != 1 || all[0].DiffID() != diffID {
		t.Errorf("layers are %v, %v", all, err)
	}
	must(t, s.Remove(t.Context(), diffID))
	if err := s.Remove(t.Context(), diffID); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("removing it twice: %v", err)
	}
	nothingLeft(t, dir)
}

func TestUnpackFails(t *testing.T) {
	t.Parallel()
	blob, diffID := someLayer(t)
	other := digest.FromString("other")
	broken := errors.New("the network is down")
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, err := w.Write(blob)
	must(t, err)
	must(t, w.Close())
	flipped := bytes.Clone(blob)
	flipped[len(blob)/2] ^= 1
	for _, c := range []struct {
		name   string
		diffID digest.Digest
		blob   func() (io.ReadCloser, error)
		err    error
		says   string
	}{
		{"wrong digest", other, opener(blob), errdefs.ErrDataLoss, diffID.String()},
		{"flipped bit", diffID, opener(flipped), nil, ""},
		{"truncated", diffID, opener(blob[:len(blob)/2]), errdefs.ErrDataLoss, ""},
		{"truncated gzip", diffID, opener(zipped.Bytes()[:zipped.Len()/2]), errdefs.ErrDataLoss, ""},
		{"empty", diffID, opener(nil), nil, ""},
		{"no blob", diffID, func() (io.ReadCloser, error) { return nil, broken }, broken, "the network is down"},
		{"broken blob", diffID, func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(blob[:99999]), failing{broken})), nil
		}, broken, "the network is down"},
		{"error on close", diffID, func() (io.ReadCloser, error) {
			return closer{bytes.NewReader(blob), broken}, nil
		}, broken, "the network is down"},
		{"no digest", "sha256:../../etc", opener(blob), errdefs.ErrInvalidArgument, "sha256:../../etc"},
		{"other digest", digest.Digest("sha512:" + strings.Repeat("0", 128)), opener(blob), errdefs.ErrInvalidArgument, "sha512"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, dir := newStore(t)
			_, err := s.Unpack(t.Context(), c.diffID, c.blob)
			oneLine(t, err, c.err, c.diffID.String(), c.says)
			nothingLeft(t, dir)
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type closer struct {
	io.Reader
	err error
}

func (c closer) Close() error { return c.err }

// TestUnpackOnce lets twenty processes unpack one layer at the same time.
func TestUnpackOnce(t *testing.T) {
	t.Parallel()
	_, dir := newStore(t)
	blob, diffID := someLayer(t)
	var opened, done atomic.Int32
	var group sync.WaitGroup
	for range 20 {
		cmd := childCommand(dir, diffID, len(blob)/2)
		cmd.Stdin = bytes.NewReader(blob)
		group.Go(func() {
			out, err := cmd.CombinedOutput()
			if err != nil && !errors.Is(err, syscall.EPIPE) { // those that need no layer do not read theirs
				t.Errorf("child: %v\n%s", err, out)
			}
			opened.Add(int32(strings.Count(string(out), "opened")))
			done.Add(int32(strings.Count(string(out), "done")))
		})
	}
	group.Wait()
	if opened.Load() != 1 || done.Load() != 20 {
		t.Errorf("%d children opened the layer and %d were served", opened.Load(), done.Load())
	}
}

// TestUnpackKilled kills a process in the middle of the layer. The next one is not hindered, and leaves nothing of it.
func TestUnpackKilled(t *testing.T) {
	t.Parallel()
	for _, next := range []string{"unpack", "prune", "remove"} {
		t.Run(next, func(t *testing.T) {
			t.Parallel()
			s, dir := newStore(t)
			blob, diffID := someLayer(t)
			killHalfWay(t, dir, blob, diffID)
			if left, _ := filepath.Glob(dir + "/layers/.tmp-*/Files/d0/*"); len(left) == 0 {
				t.Fatal("the child left nothing: it was killed too early")
			}
			if all, err := s.Layers(); len(all) != 0 || err != nil {
				t.Errorf("half a layer is listed: %v, %v", all, err)
			}
			switch next {
			case "unpack":
				l, err := s.Unpack(t.Context(), diffID, opener(blob))
				must(t, err)
				if got := len(listing(t, l.Path(), view{})); got != 511 {
					t.Errorf("the layer has %d objects", got)
				}
				must(t, s.Remove(t.Context(), diffID))
			case "prune":
				report, err := s.Prune(t.Context(), nil)
				must(t, err)
				if len(report.Leftovers) != 1 {
					t.Errorf("prune reports %v", report)
				}
			case "remove":
				if err := s.Remove(t.Context(), diffID); !errors.Is(err, errdefs.ErrNotFound) {
					t.Errorf("removing half a layer: %v", err)
				}
			}
			nothingLeft(t, dir)
		})
	}
}

// killHalfWay starts a child and kills it when it has read half of the layer and waits for more.
func killHalfWay(t *testing.T, dir string, blob []byte, diffID digest.Digest) {
	t.Helper()
	cmd := childCommand(dir, diffID, len(blob)/2)
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	_, err = stdin.Write(blob[:len(blob)*3/4])
	must(t, err)
	var said strings.Builder
	buf := make([]byte, 100)
	for !strings.Contains(said.String(), "half") {
		n, err := stdout.Read(buf)
		must(t, err)
		said.Write(buf[:n])
	}
	for left := 0; left == 0; { // what was read is to be written, too
		names, err := filepath.Glob(dir + "/layers/.tmp-*/Files/d0/*")
		must(t, err)
		left = len(names)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
}

// TestUnpackWaits cancels a process that waits for another one.
func TestUnpackWaits(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t)
	blob, diffID := someLayer(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	finished := make(chan error)
	go func() {
		_, err := s.Unpack(t.Context(), diffID, func() (io.ReadCloser, error) {
			close(entered)
			<-leave
			return io.NopCloser(bytes.NewReader(blob)), nil
		})
		finished <- err
	}()
	<-entered
	report, err := s.Prune(t.Context(), func(digest.Digest) bool { return false })
	if err != nil || len(report.Leftovers)+len(report.Layers) != 0 {
		t.Errorf("prune during an unpack: %v, %v", report, err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("waited enough"))
	defer cancel()
	_, err = s.Unpack(ctx, diffID, opener(blob))
	oneLine(t, err, nil, diffID.String(), "waited enough")
	close(leave)
	must(t, <-finished)
	must(t, s.Remove(t.Context(), diffID))
	nothingLeft(t, dir)
}

func TestUnpackCancelled(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t)
	blob, diffID := someLayer(t)
	cause := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := s.Unpack(ctx, diffID, func() (io.ReadCloser, error) {
		return io.NopCloser(&hookReader{r: bytes.NewReader(blob), at: len(blob) / 2, hook: func() { cancel(cause) }}), nil
	})
	oneLine(t, err, cause, diffID.String())
	nothingLeft(t, dir)
}

// TestUnpackFullDisk unpacks into file systems that are too small, in bytes and in inodes.
func TestUnpackFullDisk(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	var headers []tarHeader
	for i := range 300 {
		content := make([]byte, 20<<10)
		_, err := rand.Read(content)
		must(t, err)
		headers = append(headers, file(fmt.Sprint("f", i), string(content)))
	}
	large := file("large", strings.Repeat("x", 8<<20))
	for name, c := range map[string]struct {
		fs, options string
		headers     []tarHeader
	}{
		"tmpfs, small files": {"tmpfs", "size=2m", headers},
		"tmpfs, large file":  {"tmpfs", "size=2m", []tarHeader{large}},
		"tmpfs, inodes":      {"tmpfs", "nr_inodes=50", headers},
		"ext4, small files":  {"ext4", "", headers},
		"ext4, large file":   {"ext4", "", []tarHeader{large}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			testenv.NoLeaks(t, testenv.Scope{Dir: dir, Settles: true})
			mountSmall(t, dir, c.fs, c.options)
			s, err := rootfs.Open(rootfs.Config{Dir: dir})
			must(t, err)
			blob := tarOf(t, c.headers...)
			_, err = s.Unpack(t.Context(), diffIDOf(blob), opener(blob))
			oneLine(t, err, sys.ErrNoSpace, diffIDOf(blob).String(), "no space left")
			nothingLeft(t, dir)
		})
	}
}

func mountSmall(t *testing.T, dir, fstype, options string) {
	t.Helper()
	args := []string{"-t", fstype, "-o", options, "tmpfs", dir}
	if fstype == "ext4" {
		testenv.NeedKernel(t, testenv.LoopDevices)
		img := filepath.Join(t.TempDir(), "img")
		must(t, os.WriteFile(img, nil, 0o600))
		must(t, os.Truncate(img, 4<<20))
		mkfs := testenv.NeedCommand(t, "mkfs.ext4")[0]
		if out, err := exec.Command(mkfs, "-q", "-m0", "-O^has_journal", "-N", "1000", img).CombinedOutput(); err != nil {
			t.Fatalf("mkfs: %v\n%s", err, out)
		}
		args = []string{"-o", "loop", img, dir}
	}
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		t.Fatalf("mount %v: %v\n%s", args, err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
}

func TestDamagedLayer(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t)
	blob, diffID := someLayer(t)
	l, err := s.Unpack(t.Context(), diffID, opener(blob))
	must(t, err)
	good := tarOf(t, file("x", "y"))
	_, err = s.Unpack(t.Context(), diffIDOf(good), opener(good))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(filepath.Dir(l.Path()), "layer.json"), []byte("{"), 0o600))
	_, err = s.Layer(diffID)
	oneLine(t, err, errdefs.ErrDataLoss, diffID.String())
	all, err := s.Layers()
	oneLine(t, err, errdefs.ErrDataLoss, diffID.String())
	if len(all) != 1 {
		t.Errorf("%d layers are listed", len(all))
	}
	must(t, s.Remove(t.Context(), diffID))
	must(t, s.Remove(t.Context(), diffIDOf(good)))
	nothingLeft(t, dir)
}

func TestScratch(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t)
	base, top := tarOf(t, tarHeader{Name: ".", Typeflag: '5', Mode: 0o1751}, file("f", "x")), tarOf(t, file("g", "y"))
	var layers []*rootfs.Layer
	for _, blob := range [][]byte{base, top} {
		l, err := s.Unpack(t.Context(), diffIDOf(blob), opener(blob))
		must(t, err)
		layers = append(layers, l)
	}
	x, err := s.CreateScratch(t.Context(), "web", layers...)
	must(t, err)
	if info, err := os.Stat(x.Upper()); err != nil || info.Mode() != os.ModeDir|os.ModeSticky|0o751 {
		t.Errorf("the scratch layer's root is %v, %v; want that of the base", info.Mode(), err)
	}
	_, err = s.CreateScratch(t.Context(), "web")
	oneLine(t, err, errdefs.ErrAlreadyExists, "web")
	_, err = s.CreateScratch(t.Context(), "../web")
	oneLine(t, err, errdefs.ErrInvalidArgument, "../web")
	_, err = s.OpenScratch("none")
	oneLine(t, err, errdefs.ErrNotFound, "none")
	same, err := s.OpenScratch("web")
	if err != nil || same.Upper() != x.Upper() || len(same.Layers()) != 2 {
		t.Errorf("opened scratch layer is %v, %v", same, err)
	}
	oneLine(t, s.Remove(t.Context(), diffIDOf(base)), errdefs.ErrFailedPrecondition, "web", diffIDOf(base).String())
	report, err := s.Prune(t.Context(), func(digest.Digest) bool { return false })
	if err != nil || len(report.Layers)+len(report.Scratches)+len(report.Leftovers) != 0 {
		t.Errorf("prune of what is in use: %v, %v", report, err)
	}
	must(t, os.MkdirAll(filepath.Join(x.Upper(), "a/b"), 0o700))
	must(t, x.Remove())
	must(t, x.Remove())
	if all, err := s.Scratches(); len(all) != 0 || err != nil {
		t.Errorf("scratch layers are %v, %v", all, err)
	}
	report, err = s.Prune(t.Context(), func(d digest.Digest) bool { return d == diffIDOf(top) })
	if err != nil || len(report.Layers) != 1 || report.Layers[0] != diffIDOf(base) {
		t.Errorf("prune: %v, %v", report, err)
	}
	_, err = s.CreateScratch(t.Context(), "late", layers...)
	oneLine(t, err, errdefs.ErrNotFound, "late", diffIDOf(base).String())
	must(t, s.Remove(t.Context(), diffIDOf(top)))
	nothingLeft(t, dir)
	if left, _ := filepath.Glob(dir + "/scratch/[a-z]*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestScratchHalfMade finds what a process left that was killed while it made a scratch layer.
func TestScratchHalfMade(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t)
	for _, id := range []string{"a", "b"} {
		must(t, os.MkdirAll(filepath.Join(dir, "scratch", id, "upper"), 0o700))
	}
	x, err := s.CreateScratch(t.Context(), "a")
	must(t, err)
	report, err := s.Prune(t.Context(), nil)
	if err != nil || len(report.Scratches) != 1 || report.Scratches[0] != "b" {
		t.Errorf("prune: %v, %v", report, err)
	}
	must(t, x.Remove())
}

// TestStoreAtOnce does everything at the same time: nothing may be lost or half there.
func TestStoreAtOnce(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t)
	blobs := make([][]byte, 4)
	for i := range blobs {
		blobs[i] = tarOf(t, file("f", fmt.Sprint(i)), file("d/g", "x"))
	}
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			for j := range 20 {
				if err := useAndPrune(t, s, blobs[(i+j)%len(blobs)], i, j); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	_, err := s.Prune(t.Context(), func(digest.Digest) bool { return false })
	must(t, err)
	nothingLeft(t, dir)
}

func useAndPrune(t *testing.T, s *rootfs.Store, blob []byte, i, j int) error {
	l, err := s.Unpack(t.Context(), diffIDOf(blob), opener(blob))
	if err != nil {
		return err
	}
	x, err := s.CreateScratch(t.Context(), fmt.Sprintf("s%d", i), l)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil // pruned in between
	}
	if err != nil {
		return err
	}
	if _, err := os.ReadFile(filepath.Join(l.Path(), "f")); err != nil {
		return fmt.Errorf("layer in use lacks its file: %w", err)
	}
	if err := x.Remove(); err != nil || j%5 != 0 {
		return err
	}
	_, err = s.Prune(t.Context(), func(digest.Digest) bool { return i%2 == 0 })
	return err
}

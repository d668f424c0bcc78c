package rootfs_test

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/s2"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// sturdyLayer has everything that a layer directory keeps in a place of its own: large and small files, links, streams,
// whiteouts, and metadata too big for an attribute.
func sturdyLayer(t testing.TB) []byte {
	t.Helper()
	big := "O:BAG:SYD:" + strings.Repeat("(A;OICI;FA;;;SY)", 500)
	headers := []tar.Header{
		nt(dir("Files")), nt(dir("Files/Windows"), "MSWINDOWS.rawsd", sddl(t, "O:BAG:SYD:(A;;FA;;;BA)")),
		nt(file("Files/Windows/large", strings.Repeat("0123456789", 20_000))), nt(file("Files/Windows/large:stream", strings.Repeat("s", 3000))),
		nt(file("Files/spilled", "x"), "MSWINDOWS.rawsd", sddl(t, big)),
		nt(file("Files/attributes", "x"), "MSWINDOWS.xattr.EA", base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("e"), 60_000))),
		nt(tar.Header{Name: "Files/hard", Typeflag: tar.TypeLink, Linkname: "Files/Windows/large"}),
		nt(tar.Header{Name: "Files/sym", Typeflag: tar.TypeSymlink, Linkname: `C:\Windows`}), wh("Files/gone"),
	}
	delete(headers[3].PAXRecords, "MSWINDOWS.fileattr")
	for i := range 40 {
		headers = append(headers, nt(file(fmt.Sprintf("Files/Windows/small%d", i), strings.Repeat("small", 100*i))))
	}
	return tarOf(t, append(headers, nt(dir("Hives")))...)
}

// checkStored reads a layer from its directory.
func checkStored(t testing.TB, dir string, want []byte) {
	t.Helper()
	var out bytes.Buffer
	must(t, rootfs.WriteNT(t.Context(), dir, &out))
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%s is written again with different bytes", dir)
	}
}

// TestNTKilled kills processes everywhere in an import: nothing has the layer's name, and the next import removes what
// was left.
func TestNTKilled(t *testing.T) {
	if at, dir, ok := strings.Cut(os.Getenv("HCS_TEST_NT_HALF"), " "); ok {
		offset, err := strconv.Atoi(at)
		must(t, err)
		importHalf(t, dir, offset)
	}
	t.Parallel()
	stream := sturdyLayer(t)
	for at := 512; at < len(stream); at += len(stream) / 12 {
		top := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^TestNTKilled$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("HCS_TEST_NT_HALF=%d %s", at, top))
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		line := make([]byte, len(halfWay))
		if _, err = io.ReadFull(out, line); err != nil || string(line) != halfWay {
			t.Errorf("the process says %q, %v", line, err)
		}
		must(t, cmd.Process.Signal(syscall.SIGKILL))
		_ = cmd.Wait() // killed
		if left := names(t, top); len(left) != 1 || left[0] == "layer" {
			t.Fatalf("killed at %d: it left %v", at, left)
		}
		dir := filepath.Join(top, "layer")
		_, err = importNT(t, dir, nil, stream)
		must(t, err)
		checkStored(t, dir, stream)
		must(t, os.RemoveAll(dir))
		empty(t, top)
	}
}

// importHalf imports a layer of which the end never comes.
func importHalf(t *testing.T, dir string, offset int) {
	hook := func() {
		fmt.Print(halfWay)
		testenv.AwaitKill()
	}
	in := &hookReader{r: bytes.NewReader(sturdyLayer(t)), at: offset, hook: hook}
	_, err := rootfs.ImportNT(t.Context(), filepath.Join(dir, "layer"), nil, layer.ReadOptions{Encoding: layer.NT}.NewReader(in), ntOptions())
	t.Fatalf("imported to the end: %v", err)
}

// TestNTDiskFull imports to file systems that are too small, each a little larger than the one before, until one is not.
func TestNTDiskFull(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	stream := sturdyLayer(t)
	for _, kind := range []struct {
		option     string
		start, end int
	}{{"size=%dk", 32, 4096}, {"nr_inodes=%d", 5, 200}} {
		failed := 0
		for n := kind.start; n < kind.end; n += n/4 + 1 {
			top := t.TempDir()
			mountSmall(t, top, "tmpfs", fmt.Sprintf(kind.option, n))
			dir := filepath.Join(top, "layer")
			_, err := importNT(t, dir, nil, stream)
			if err == nil {
				checkStored(t, dir, stream)
				break
			}
			oneLine(t, err, sys.ErrNoSpace, "import layer to "+dir)
			failed++
			empty(t, top)
		}
		if failed < 5 {
			t.Errorf("%s: only %d did not fit", kind.option, failed)
		}
	}
}

// TestNTCut imports a layer that ends too early: it is refused, or what is there is a layer, which is stored as it is.
func TestNTCut(t *testing.T) {
	t.Parallel()
	stream := sturdyLayer(t)
	top := t.TempDir()
	dir := filepath.Join(top, "layer")
	for cut := 0; cut < len(stream); cut += 3 * 397 { // at all offsets in a block
		_, err := importNT(t, dir, nil, stream[:cut])
		if err == nil {
			checkStored(t, dir, stream[:cut])
			must(t, os.RemoveAll(dir))
		} else if !errdefs.IsDataLoss(err) && !errdefs.IsInvalidArgument(err) && readsNT(stream[:cut]) == nil {
			t.Errorf("cut at %d: %v", cut, err)
		}
		empty(t, top)
	}
}

// TestNTTogether imports to the same place several times at once: one wins, and the others say that it is there.
func TestNTTogether(t *testing.T) {
	t.Parallel()
	stream := sturdyLayer(t)
	for range 5 {
		top := t.TempDir()
		dir := filepath.Join(top, "layer")
		results := make(chan error)
		for i := range 6 {
			in := stream
			if i%2 == 1 {
				in = stream[:len(stream)/2] // which fails, and must not take others' work away
			}
			go func() {
				r := layer.ReadOptions{Encoding: layer.NT}.NewReader(bytes.NewReader(in))
				_, err := rootfs.ImportNT(t.Context(), dir, nil, r, ntOptions())
				results <- err
			}()
		}
		won := 0
		for range 6 {
			switch err := <-results; {
			case err == nil:
				won++
			case !errdefs.IsAlreadyExists(err) && !errdefs.IsDataLoss(err):
				t.Error(err)
			}
		}
		if won != 1 {
			t.Errorf("%d won", won)
		}
		checkStored(t, dir, stream)
		must(t, os.RemoveAll(dir))
		empty(t, top)
	}
}

// TestNTDamaged changes and cuts the files of a layer directory. What was stored is written or an error returned; a layer
// that is silently another one is what must not be.
func TestNTDamaged(t *testing.T) {
	t.Parallel()
	stream := sturdyLayer(t)
	dir := filepath.Join(t.TempDir(), "layer")
	_, err := importNT(t, dir, nil, stream)
	must(t, err)
	spilled, err := filepath.Glob(filepath.Join(dir, "Metadata", "*"))
	must(t, err)
	if len(spilled) != 3 { // of a descriptor, an extended attribute, a stream
		t.Fatalf("spilled %v", spilled)
	}
	for _, name := range []string{filepath.Join(dir, "headers.s2"), filepath.Join(dir, "layer.json")} {
		damage(t, name, func(how string) {
			var out bytes.Buffer
			if err := rootfs.WriteNT(t.Context(), dir, &out); err == nil && !bytes.Equal(out.Bytes(), stream) {
				t.Errorf("%s %s: other bytes", name, how)
			} else if err != nil && !errdefs.IsDataLoss(err) && !errdefs.IsFailedPrecondition(err) {
				t.Errorf("%s %s: %v", name, how, err)
			}
		})
	}
	for _, name := range spilled {
		damage(t, name, func(how string) {
			lost := 0
			for _, file := range []string{"Files/spilled", "Files/attributes", "Files/Windows/large"} {
				_, content, err := rootfs.OpenNT([]string{dir}, file)
				switch {
				case errdefs.IsDataLoss(err):
					lost++
				case err != nil:
					t.Errorf("%s %s: %v", name, how, err)
				default:
					must(t, content.Close())
				}
			}
			if lost != 1 {
				t.Errorf("%s %s: %d files say that their metadata is lost", name, how, lost)
			}
		})
	}
	checkStored(t, dir, stream)
}

// TestKeptDamaged is the same for what is kept of a Linux layer's stream.
func TestKeptDamaged(t *testing.T) {
	t.Parallel()
	headers := []tar.Header{dir("etc")}
	for i := range 3000 {
		headers = append(headers, file(fmt.Sprintf("etc/%d", i*i), "x"))
	}
	stream := tarOf(t, headers...)
	dir := filepath.Join(t.TempDir(), "layer")
	_, err := rootfs.ImportLayer(t.Context(), dir, nil, layer.ReadOptions{}.NewReader(bytes.NewReader(stream)), rootfs.NTOptions{})
	must(t, err)
	check := func(how string) {
		var out bytes.Buffer
		if _, err := rootfs.WriteLayer(t.Context(), dir, nil, &out); err == nil && !bytes.Equal(out.Bytes(), stream) {
			t.Errorf("%s: other bytes", how)
		} else if err != nil && !errdefs.IsDataLoss(err) && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", how, err)
		}
	}
	name := filepath.Join(dir, "headers.s2")
	damage(t, name, check)
	good, err := os.ReadFile(name)
	must(t, err)
	var short bytes.Buffer // a whole file of another layer, which ends early
	w := s2.NewWriter(&short)
	_, err = io.CopyN(w, s2.NewReader(bytes.NewReader(good)), 1024*100)
	must(t, errors.Join(err, w.Close()))
	must(t, os.WriteFile(name, short.Bytes(), 0o600))
	if _, err := rootfs.WriteLayer(t.Context(), dir, nil, io.Discard); !errdefs.IsDataLoss(err) {
		t.Errorf("an early end: %v", err)
	}
	must(t, os.WriteFile(name, good, 0o600))
	check("whole")
}

// damage changes single bytes of a file, and cuts it, and calls check each time. In the end it is as before.
func damage(t *testing.T, name string, check func(how string)) {
	good, err := os.ReadFile(name)
	must(t, err)
	step := len(good)/60 + 1
	for at := 0; at < len(good); at += step {
		bad := bytes.Clone(good)
		bad[at] ^= 0x41
		must(t, os.WriteFile(name, bad, 0o600))
		check(fmt.Sprintf("changed at %d", at))
		must(t, os.WriteFile(name, good[:at], 0o600))
		check(fmt.Sprintf("cut at %d", at))
	}
	must(t, os.WriteFile(name, good, 0o600))
}

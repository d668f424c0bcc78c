package cli_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
)

var listening = regexp.MustCompile(`listening on ([0-9.:]+)`)

// startRegistry runs Debian's registry, with more of its configuration if the
// test wants that, and returns its address.
func startRegistry(t *testing.T, more ...string) string {
	t.Helper()
	program := testenv.NeedCommand(t, "docker-registry")[0]
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yml")
	config := fmt.Sprintf("version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: '127.0.0.1:0'}\n%s\n",
		filepath.Join(dir, "data"), strings.Join(more, "\n"))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", file)
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			go func() { _, _ = io.Copy(io.Discard, stderr) }()
			return m[1]
		}
	}
	t.Fatal("the registry did not start")
	return ""
}

// A throttle stands before a registry. It holds up what is sent of blobs when
// so many bytes of one have passed, until it is opened, and counts them.
type throttle struct {
	addr   string
	stop   int64 // 0 lets everything pass
	opened chan struct{}
	open   func()

	mu      sync.Mutex
	fetches []*throttled
}

func startThrottle(t *testing.T, registry string, stop int64) *throttle {
	t.Helper()
	th := &throttle{stop: stop, opened: make(chan struct{})}
	th.open = sync.OnceFunc(func() { close(th.opened) })
	target := &url.URL{Scheme: "http", Host: registry}
	forward := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		FlushInterval: -1,
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			f := &throttled{ResponseWriter: w, throttle: th, done: r.Context().Done(), ranged: r.Header.Get("Range")}
			th.mu.Lock()
			th.fetches = append(th.fetches, f)
			th.mu.Unlock()
			w = f
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(th.open)
	th.addr = strings.TrimPrefix(server.URL, "http://")
	return th
}

// reset lets everything pass, and forgets what was asked for.
func (th *throttle) reset() {
	th.open()
	th.mu.Lock()
	defer th.mu.Unlock()
	th.fetches = nil
}

// fetched returns the ranges that blobs were asked for, and the bytes that
// were sent for them.
func (th *throttle) fetched() (ranges []string, sent int64) {
	th.mu.Lock()
	defer th.mu.Unlock()
	for _, f := range th.fetches {
		ranges = append(ranges, f.ranged)
		sent += f.sent.Load()
	}
	return ranges, sent
}

// throttled is the answer to one question for a blob.
type throttled struct {
	http.ResponseWriter
	*throttle
	done   <-chan struct{}
	ranged string
	sent   atomic.Int64
}

func (w *throttled) Write(p []byte) (int, error) {
	n := 0
	if sent := w.sent.Load(); w.stop > 0 && sent < w.stop && sent+int64(len(p)) > w.stop {
		n = int(w.stop - sent)
		if _, err := w.pass(p[:n]); err != nil {
			return 0, err
		}
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		select {
		case <-w.opened:
		case <-w.done:
		}
	}
	m, err := w.pass(p[n:])
	return n + m, err
}

func (w *throttled) pass(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.sent.Add(int64(n))
	return n, err
}

func (w *throttled) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// pushed puts the busybox image into a registry, and returns the bytes of its
// layer.
func (h *host) pushed(addr string) int64 {
	h.t.Helper()
	layout := testenv.Image(h.t, "busybox")
	h.must("image", "copy", "-q", "oci:"+layout, "docker://"+addr+"/box:1")
	src, img, err := image.OpenImage(h.t.Context(), image.Ref{Transport: image.TransportOCI, Path: layout, Tag: "latest"}, image.HostPlatform())
	if err != nil {
		h.t.Fatal(err)
	}
	defer src.Close()
	return img.Manifest.Layers[0].Size
}

// TestKilledPull has a pull die half way of a signal that it cannot catch: the
// next one fetches the rest of the layer, and no more.
func TestKilledPull(t *testing.T) {
	h := newHost(t)
	registry := startRegistry(t)
	size := h.pushed(registry)
	th := startThrottle(t, registry, size/2)
	name := th.addr + "/box:1"

	cmd := h.hcs("image", "pull", name)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kept := func() int64 {
		files, err := filepath.Glob(filepath.Join(h.dir, "root", "*", ".hcs-tmp", "sha256-*"))
		if err != nil || len(files) != 1 {
			return 0
		}
		info, err := os.Stat(files[0])
		if err != nil {
			return 0
		}
		return info.Size()
	}
	for deadline := time.Now().Add(testenv.Patience); kept() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the pull ended by itself: %v", err)
	}
	has := kept()
	if has == 0 || has > size/2 {
		t.Fatalf("%d bytes were kept of the %d that came", has, size/2)
	}

	th.reset()
	h.must("image", "pull", "-q", name)
	ranges, sent := th.fetched()
	config := sent - (size - has) // is not a layer and comes whole
	if len(ranges) != 2 || ranges[0]+ranges[1] != fmt.Sprintf("bytes=%d-", has) || config < 0 || config > 4096 {
		t.Errorf("the next pull, which had %d of %d bytes, asked for %q and got %d", has, size, ranges, sent)
	}
	if got := h.must("run", "--rm", name, "echo", "hi"); got != "hi\n" {
		t.Errorf("got %q", got)
	}

	th.reset()
	h.must("image", "pull", "-q", name)
	if ranges, _ := th.fetched(); len(ranges) != 0 {
		t.Errorf("what was there was fetched: %q", ranges)
	}
}

// TestBars pulls an image of two layers at a terminal: each has a line, and
// that of the small one is full while the other's is held up.
func TestBars(t *testing.T) {
	h := newHost(t)
	registry := startRegistry(t)
	size := h.pushed(registry)
	h.must("run", "--name", "c", "oci:"+testenv.Image(t, "busybox"), "touch", "/new")
	h.must("commit", "c", "two")
	h.must("image", "push", "-q", "two", registry+"/two:1")
	th := startThrottle(t, registry, size/2)
	name := th.addr + "/two:1"
	h.must("rm", "c")
	h.must("image", "rm", "two", "busybox")

	cmd := h.hcs("image", "pull", name)
	c := startAt(t, cmd, 24, 100)
	c.expect(" done")
	c.expect("#....")
	c.expect("[####")
	c.expect("] ")
	th.open()
	c.expect(" done")
	c.expect(" done")
	c.expect("pulled " + name + ": 2 layers, ")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	h.must("image", "rm", name)

	// Narrow, and interrupted.
	th = startThrottle(t, registry, size/2)
	cmd = h.hcs("image", "pull", th.addr+"/box:1")
	c = startAt(t, cmd, 24, 30)
	c.expect("KB of")
	c.write("\x03")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("interrupted: %v", err)
	}
}

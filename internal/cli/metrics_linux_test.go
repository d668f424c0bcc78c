package cli_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/hostcompute/hcs/internal/testenv"
)

var sampleLine = regexp.MustCompile(`^([a-z_]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\\\|\\"|\\n)*",?)+)\} (\d\S*)$`)

// checkMetrics sees that a text is in Prometheus' format, and returns its samples: names with labels, and values.
func checkMetrics(t *testing.T, text string) map[string]string {
	t.Helper()
	samples, kinds := make(map[string]string), make(map[string]string)
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			if kinds[name] != "" || kind != "gauge" && kind != "counter" || (kind == "counter") != strings.HasSuffix(name, "_total") {
				t.Errorf("bad or repeated: %q", line)
			}
			kinds[name], last = kind, name
			continue
		}
		if strings.HasPrefix(line, "# HELP ") {
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil || m[1] != last {
			t.Errorf("no sample of %s: %q", last, line)
			continue
		}
		if _, twice := samples[m[1]+"{"+m[2]+"}"]; twice {
			t.Errorf("twice: %q", line)
		}
		samples[m[1]+"{"+m[2]+"}"] = m[3]
	}
	return samples
}

func TestMetrics(t *testing.T) {
	h := newHost(t)
	image := testenv.Image(t, "busybox")
	h.must("run", "-d", "--name", "web", "--memory", "64m", "--pids", "20", "oci:"+image, "sleep", "1000")
	h.must("run", "-d", "--name", "dir", "--entrypoint", "/bin/sleep", "--rootfs", "/", "1000")
	h.must("run", "--name", "over", "busybox", "true")
	samples := checkMetrics(t, h.must("system", "metrics"))
	id := strings.TrimSpace(h.must("inspect", "-f", "{{.ID}}", "web"))
	of := `{id="` + id + `",name="web"}`
	for name, want := range map[string]string{
		`hcs_containers{state="running"}`: "2", `hcs_containers{state="stopped"}`: "1", `hcs_containers{state="lost"}`: "0",
		"hcs_container_memory_limit_bytes" + of:                                 "6.7108864e+07",
		`hcs_container_info{id="` + id + `",name="web",image="busybox:latest"}`: "1",
		"hcs_container_oom_kills_total" + of:                                    "0",
	} {
		if samples[name] != want {
			t.Errorf("%s is %q, want %s", name, samples[name], want)
		}
	}
	for _, name := range []string{"start_time_seconds", "cpu_seconds_total", "memory_bytes", "processes", "processes_limit"} {
		if v := samples["hcs_container_"+name+of]; v == "" || v == "0" {
			t.Errorf("%s is %q", name, v)
		}
	}
}

// TestMetricsServed asks for them over TCP and a socket in the file system, which a killed server has left.
func TestMetricsServed(t *testing.T) {
	h := newHost(t)
	socket := filepath.Join(h.dir, "metrics.sock")
	for _, c := range []struct {
		listen string
		end    syscall.Signal
	}{{"127.0.0.1:0", syscall.SIGINT}, {"unix:" + socket, syscall.SIGKILL}, {"unix:" + socket, syscall.SIGTERM}} {
		cmd := h.hcs("system", "metrics", "--listen", c.listen)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		url, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
		if err != nil || !ok {
			t.Fatalf("it says %q, %v", line, err)
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		if path, ok := strings.CutPrefix(url, "unix:"); ok {
			client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			}}
			url = "http://hcs/metrics"
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the socket is %v, %v", info, err)
			}
		}
		text, kind := get(t, client, url, http.StatusOK)
		if samples := checkMetrics(t, text); samples[`hcs_containers{state="running"}`] != "0" || kind != "text/plain; version=0.0.4; charset=utf-8" {
			t.Errorf("got %q, %s", samples, kind)
		}
		get(t, client, strings.TrimSuffix(url, "metrics")+"other", http.StatusNotFound)
		if err := cmd.Process.Signal(c.end); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); (err == nil) == (c.end == syscall.SIGKILL) {
			t.Errorf("%v: %v", c.end, err)
		}
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

func get(t *testing.T, c *http.Client, url string, want int) (text, kind string) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != want {
		t.Errorf("%s: %s, %v", url, r.Status, err)
	}
	return string(body), r.Header.Get("Content-Type")
}

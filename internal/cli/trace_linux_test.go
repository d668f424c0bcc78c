package cli_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/hostcompute/hcs/internal/testenv"
)

type tracedSpan struct {
	TraceID, SpanID, ParentSpanID, Name string
	Status                              struct{ Code int }
	Attributes                          []struct {
		Key   string
		Value struct{ StringValue, IntValue string }
	}
}

// TestTrace has a collector take what commands do.
func TestTrace(t *testing.T) {
	h := newHost(t)
	var mu sync.Mutex
	var spans []tracedSpan
	answer := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var request struct {
			ResourceSpans []struct {
				ScopeSpans []struct{ Spans []tracedSpan }
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if err := json.Unmarshal(body, &request); err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("X-Key") != "a b" {
			t.Errorf("got %s %q: %v", r.URL, body, err)
			return
		}
		spans = request.ResourceSpans[0].ScopeSpans[0].Spans
		w.WriteHeader(answer)
	}))
	defer server.Close()
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	env := []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + server.URL + "/", "OTEL_EXPORTER_OTLP_HEADERS=x-key=a%20b", "TRACEPARENT=00-" + trace + "-" + parent + "-01",
	}
	taken := func() []tracedSpan {
		mu.Lock()
		defer mu.Unlock()
		return spans
	}
	run := func(want int, args []string, more ...string) string {
		t.Helper()
		mu.Lock()
		spans = nil
		mu.Unlock()
		cmd := h.hcs(args...)
		cmd.Env = append(append(cmd.Env, env...), more...)
		out, err := cmd.CombinedOutput()
		if _, failed := errors.AsType[*exec.ExitError](err); cmd.ProcessState.ExitCode() != want || err != nil && !failed {
			t.Errorf("%q: %v, want %d: %s", args, err, want, out)
		}
		return string(out)
	}
	image := "oci:" + testenv.Image(t, "busybox")
	if out := run(3, []string{"run", "--rm", image, "sh", "-c", "exit 3"}); out != "" {
		t.Errorf("it says %q", out)
	}
	var names []string
	got := taken()
	root := got[len(got)-1]
	for _, s := range got {
		names = append(names, s.Name)
		if s.TraceID != trace || len(s.SpanID) != 16 || s.Status.Code != 0 || s.Name != root.Name && s.ParentSpanID != root.SpanID {
			t.Errorf("got %+v", s)
		}
	}
	if all := strings.Join(names, ", "); all != "create container, start container, run process, hcs run" || root.ParentSpanID != parent {
		t.Errorf("got %s in %s", all, root.ParentSpanID)
	}
	if n := len(root.Attributes); n != 1 || root.Attributes[0].Value.IntValue != "3" {
		t.Errorf("got %+v", root.Attributes)
	}
	run(125, []string{"exec", "nobody", "true"})
	if got = taken(); len(got) != 1 || got[0].Status.Code != 2 {
		t.Errorf("of a failure: %+v", got)
	}
	// What is not to be traced is not; what cannot be sent is said, and the command's end is its own.
	run(0, []string{"ps"}, "TRACEPARENT=00-"+trace+"-"+parent+"-00")
	run(0, []string{"ps"}, "OTEL_SDK_DISABLED=true")
	if got = taken(); len(got) != 0 {
		t.Errorf("traced all the same: %+v", got)
	}
	mu.Lock()
	answer = http.StatusServiceUnavailable
	mu.Unlock()
	if out := run(0, []string{"ps", "-q"}); !strings.Contains(out, "hcs: warning: send the trace to http://") || !strings.Contains(out, "503") {
		t.Errorf("it says %q", out)
	}
	if out := run(0, []string{"ps", "-q"}, "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "refused") {
		t.Errorf("it says %q", out)
	}
}

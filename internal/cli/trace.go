package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

// Traces are OpenTelemetry's: the environment says where they go
// (https://opentelemetry.io/docs/specs/otel/protocol/exporter/), and TRACEPARENT what they are a part of
// (https://www.w3.org/TR/trace-context/). They are sent when the command has ended, as JSON over HTTP, by the program that has
// HTTP. Where the environment names no endpoint, looking there is all that they cost.

// tracer collects the spans of one command. A nil one does nothing.
type tracer struct {
	endpoint string
	trace    string // id
	root     span

	mu    sync.Mutex
	spans []span
}

// span is one of OTLP's (opentelemetry/proto/trace/v1/trace.proto, as JSON).
type span struct {
	TraceID      string      `json:"traceId"`
	SpanID       string      `json:"spanId"`
	ParentSpanID string      `json:"parentSpanId,omitempty"`
	Name         string      `json:"name"`
	Kind         int         `json:"kind"`
	Start        string      `json:"startTimeUnixNano"`
	End          string      `json:"endTimeUnixNano"`
	Attributes   []attribute `json:"attributes,omitempty"`
	Status       spanStatus  `json:"status,omitzero"`
}

type spanStatus struct {
	Code    int    `json:"code"`
	Message string `json:"message,omitempty"`
}

const (
	spanInternal = 1 // SPAN_KIND_INTERNAL
	spanFailed   = 2 // STATUS_CODE_ERROR
)

type attribute struct {
	Key   string         `json:"key"`
	Value map[string]any `json:"value"`
}

func text(key, value string) attribute { return attribute{key, map[string]any{"stringValue": value}} }

// number has the form that 64 bits have in JSON.
func number(key string, n int) attribute {
	return attribute{key, map[string]any{"intValue": strconv.Itoa(n)}}
}

// newTracer returns nil where nothing is to be traced.
func newTracer() *tracer {
	t := &tracer{endpoint: os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")}
	if base := os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"); t.endpoint == "" && base != "" {
		t.endpoint = strings.TrimSuffix(base, "/") + "/v1/traces"
	}
	if t.endpoint == "" || os.Getenv("OTEL_SDK_DISABLED") == "true" || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return nil
	}
	trace, parent, sampled := parseTraceparent(os.Getenv("TRACEPARENT"))
	if !sampled {
		return nil
	}
	t.trace = trace
	t.root = t.begin("hcs", parent)
	return t
}

// parseTraceparent reads 00-TRACE-PARENT-FLAGS. What is no such thing begins a trace.
func parseTraceparent(s string) (trace, parent string, sampled bool) {
	f := strings.Split(s, "-")
	if len(f) != 4 || f[0] != "00" || !isID(f[1], 16) || !isID(f[2], 8) || len(f[3]) != 2 {
		return newSpanID(16), "", true
	}
	flags, err := strconv.ParseUint(f[3], 16, 8)
	return f[1], f[2], err != nil || flags&1 != 0
}

func isID(s string, size int) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == size && strings.Trim(s, "0") != ""
}

func newSpanID(size int) string {
	b := make([]byte, size)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func (t *tracer) begin(name, parent string) span {
	return span{
		TraceID: t.trace, SpanID: newSpanID(8), ParentSpanID: parent, Name: name, Kind: spanInternal, Start: unixNano(time.Now()),
	}
}

func unixNano(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

// span begins a part of the command. What it returns ends it, and returns the error that it is given.
func (t *tracer) span(name string, attributes ...attribute) func(error) error {
	if t == nil {
		return func(err error) error { return err }
	}
	s := t.begin(name, t.root.SpanID)
	s.Attributes = attributes
	return func(err error) error {
		s.fail(err)
		t.add(s)
		return err
	}
}

// fail notes an error; the exit status of a process is none of ours.
func (s *span) fail(err error) {
	code, isExit := errors.AsType[exitStatus](err)
	switch {
	case isExit:
		s.Attributes = append(s.Attributes, number("process.exit.code", int(code)))
	case err != nil:
		s.Status = spanStatus{spanFailed, sentence(err)}
	}
}

func (t *tracer) add(s span) {
	s.End = unixNano(time.Now())
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spans = append(t.spans, s)
}

// finishTrace sends all spans when a command has ended.
func (a *app) finishTrace(c *cobra.Command, err error) {
	t := a.tracer
	if t == nil || c == nil || c.Name() == sendTraces {
		return
	}
	t.root.Name = c.CommandPath()
	t.root.fail(err)
	t.add(t.root)
	if err := a.sendTrace(t); err != nil {
		a.warn("send the trace to " + t.endpoint + ": " + sentence(err))
	}
}

// encode returns the spans as the body of a request (ExportTraceServiceRequest).
func (t *tracer) encode() ([]byte, error) {
	resource := []attribute{text("service.name", cmp.Or(os.Getenv("OTEL_SERVICE_NAME"), "hcs")), text("service.version", programVersion())}
	type object map[string]any
	return json.Marshal(object{"resourceSpans": []object{{
		"resource":   object{"attributes": resource},
		"scopeSpans": []object{{"scope": object{"name": "github.com/hostcompute/hcs"}, "spans": t.spans}},
	}}})
}

// sendTraces is the hidden command that hcs-registry sends a trace by.
const sendTraces = "send-traces"

func (a *app) sendTrace(t *tracer) error {
	body, err := t.encode()
	if err != nil {
		return err
	}
	if a.registries != nil {
		return a.postTrace(context.Background(), t.endpoint, bytes.NewReader(body))
	}
	program, err := findProgram(registryProgram)
	if err != nil {
		return err
	}
	cmd := exec.Command(program, "system", sendTraces, t.endpoint)
	var said strings.Builder
	cmd.Stdin, cmd.Stderr = bytes.NewReader(body), &said
	if err := cmd.Run(); err != nil {
		return errors.New(strings.TrimPrefix(cmp.Or(strings.TrimSpace(said.String()), err.Error()), "hcs: "))
	}
	return nil
}

func newSendTraces(a *app) *cobra.Command {
	return &cobra.Command{
		Use: sendTraces + " ENDPOINT", Hidden: true, Short: "Send a trace from standard input", Args: takes(1, 1, "an endpoint"),
		RunE: a.withRegistries(func(c *cobra.Command, args []string) error { return a.postTrace(c.Context(), args[0], a.in) }),
	}
}

// exportTimeout is the specification's.
const exportTimeout = 10 * time.Second

func (a *app) postTrace(ctx context.Context, endpoint string, body io.Reader) error {
	header, err := exportHeaders()
	if err != nil {
		return err
	}
	timeout := exportTimeout
	if ms := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"), os.Getenv("OTEL_EXPORTER_OTLP_TIMEOUT")); ms != "" {
		n, err := strconv.ParseUint(ms, 10, 31)
		if err != nil {
			return fmt.Errorf("OTEL_EXPORTER_OTLP_TIMEOUT %q: give milliseconds", ms)
		}
		timeout = time.Duration(n) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return a.registries.Post(ctx, endpoint, header, body)
}

// exportHeaders reads KEY=VALUE,…, in which values are escaped as in URLs.
func exportHeaders() (map[string]string, error) {
	list := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS"), os.Getenv("OTEL_EXPORTER_OTLP_HEADERS"))
	header := map[string]string{"Content-Type": "application/json"}
	for pair := range strings.SplitSeq(list, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok && key == "" {
			continue
		}
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if err != nil || !ok {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_HEADERS: %q is not KEY=VALUE", key)
		}
		header[strings.TrimSpace(key)] = value
	}
	return header, nil
}

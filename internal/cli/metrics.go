package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/container"
)

type metricsOptions struct{ listen string }

func newSystemMetrics(a *app) *cobra.Command {
	var o metricsOptions
	c := &cobra.Command{
		Use:   "metrics",
		Short: "Show what containers use, as Prometheus reads it",
		Long: `Show what running containers use, in the text format of Prometheus: once on standard output, or with --listen for whoever
asks for /metrics, until you interrupt it.`,
		Example: `  hcs system metrics >/var/lib/node_exporter/hcs.prom
  hcs system metrics --listen 9101
  hcs system metrics --listen unix:/run/hcs-metrics.sock`,
		Args: takes(0, 0, ""),
	}
	o.addFlags(c.Flags())
	served := a.withRegistries(func(c *cobra.Command, _ []string) error { return o.serve(c.Context(), a) })
	c.RunE = func(c *cobra.Command, args []string) error {
		if o.listen != "" {
			return served(c, args) // by the program that has HTTP
		}
		h, err := a.host() // which knows whether there are control groups
		if err != nil {
			return err
		}
		return writeMetrics(c.Context(), h, a.out)
	}
	return c
}

func (o *metricsOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.listen, "listen", "", "serve them over HTTP at `[ADDRESS:]PORT or unix:PATH`: without an address on 127.0.0.1, for all that reach this machine at 0.0.0.0:PORT or [::]:PORT")
}

// metricsType is that of the format (https://prometheus.io/docs/instrumenting/exposition_formats/).
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

func (o *metricsOptions) serve(ctx context.Context, a *app) error {
	at, err := o.listener()
	if err != nil {
		return err
	}
	h, err := a.host()
	if err != nil {
		return err
	}
	ctx = a.signals.catch(ctx)
	ready := func(url string) { fmt.Fprintln(a.out, "listening on", url) }
	return a.registries.Serve(ctx, at, ready, func(ctx context.Context, w io.Writer) error { return writeMetrics(ctx, h, w) })
}

// listener reads unix:PATH, [ADDRESS:]PORT. There is no password, so that a port alone is for this machine's own programs.
func (o *metricsOptions) listener() (Listener, error) {
	at := Listener{Network: "tcp", Address: o.listen, Path: "/metrics", ContentType: metricsType}
	if path, ok := strings.CutPrefix(o.listen, "unix:"); ok && path != "" {
		at.Network, at.Address = "unix", path
		return at, nil
	}
	colon := strings.LastIndexByte(o.listen, ':')
	host, port := o.listen[:max(0, colon)], o.listen[colon+1:]
	if _, err := strconv.ParseUint(port, 10, 16); err != nil || host == "unix" {
		return at, usage(fmt.Sprintf("system metrics: listen at %q: give PORT, ADDRESS:PORT, or unix:PATH", o.listen))
	}
	if host == "" {
		at.Address = "127.0.0.1:" + port
	}
	return at, nil
}

// sampled is a container at one moment.
type sampled struct {
	id, name, image string
	started         time.Time
	stats           container.Stats
	counted         bool // else it has no control group
}

// metric is one of those that each container has. Names and units follow https://prometheus.io/docs/practices/naming/.
type metric struct {
	name, kind, help string
	value            func(*sampled) (float64, bool)
}

func always(f func(*container.Stats) float64) func(*sampled) (float64, bool) {
	return func(s *sampled) (float64, bool) { return f(&s.stats), s.counted }
}

// unlessZero is for limits, which 0 is none of.
func unlessZero(f func(*container.Stats) float64) func(*sampled) (float64, bool) {
	return func(s *sampled) (float64, bool) {
		v := f(&s.stats)
		return v, s.counted && v > 0
	}
}

var metrics = []metric{
	{"start_time_seconds", "gauge", "When the container started, in seconds since 1970.", func(s *sampled) (float64, bool) {
		return float64(s.started.UnixNano()) / 1e9, !s.started.IsZero()
	}},
	{"cpu_seconds_total", "counter", "Processor time that the container has used.", always(func(s *container.Stats) float64 { return s.CPU.Seconds() })},
	{"cpu_user_seconds_total", "counter", "Processor time used outside of the kernel.", always(func(s *container.Stats) float64 { return s.CPUUser.Seconds() })},
	{"cpu_system_seconds_total", "counter", "Processor time used in the kernel.", always(func(s *container.Stats) float64 { return s.CPUSystem.Seconds() })},
	{"memory_bytes", "gauge", "Memory in use, page cache included.", always(func(s *container.Stats) float64 { return float64(s.MemoryUsage) })},
	{"memory_cache_bytes", "gauge", "Memory in use that the kernel can drop.", always(func(s *container.Stats) float64 { return float64(s.MemoryCache) })},
	{"memory_peak_bytes", "gauge", "The most memory that was in use.", unlessZero(func(s *container.Stats) float64 { return float64(s.MemoryPeak) })},
	{"memory_limit_bytes", "gauge", "The limit of memory, if there is one.", unlessZero(func(s *container.Stats) float64 { return float64(s.MemoryLimit) })},
	{"oom_kills_total", "counter", "Processes that were killed for lack of memory.", always(func(s *container.Stats) float64 { return float64(s.OOMKills) })},
	{"processes", "gauge", "Processes and threads.", always(func(s *container.Stats) float64 { return float64(s.Pids) })},
	{"processes_limit", "gauge", "The limit of processes and threads, if there is one.", unlessZero(func(s *container.Stats) float64 { return float64(s.PidsLimit) })},
	{"device_read_bytes_total", "counter", "Bytes read from block devices.", always(func(s *container.Stats) float64 { return float64(s.ReadBytes) })},
	{"device_written_bytes_total", "counter", "Bytes written to block devices.", always(func(s *container.Stats) float64 { return float64(s.WriteBytes) })},
	{"device_reads_total", "counter", "Reads from block devices.", always(func(s *container.Stats) float64 { return float64(s.ReadOps) })},
	{"device_writes_total", "counter", "Writes to block devices.", always(func(s *container.Stats) float64 { return float64(s.WriteOps) })},
}

// writeMetrics asks all containers and writes the answers.
func writeMetrics(ctx context.Context, h *hcs.Host, to io.Writer) error {
	systems, err := h.Containers().Systems(ctx)
	if err != nil {
		return err
	}
	states := make(map[container.State]int)
	var running []sampled
	for _, s := range systems {
		st, err := s.Status(ctx)
		if err == nil {
			states[st.State]++
		}
		if err == nil && isRunning(st) {
			running, err = addSample(ctx, running, s, st)
		}
		if err = errors.Join(err, s.Close()); err != nil && !isGone(err) {
			return err
		}
	}
	w := metricsWriter{w: bufio.NewWriter(to)}
	w.all(states, running)
	return w.w.Flush()
}

func addSample(ctx context.Context, list []sampled, s *container.System, st container.Status) ([]sampled, error) {
	stats, err := s.Stats(ctx)
	if err != nil && !errdefs.IsNotImplemented(err) {
		if errdefs.IsFailedPrecondition(err) { // it has stopped meanwhile
			return list, nil
		}
		return list, err
	}
	return append(list, sampled{s.ID(), s.Name(), s.Record().Spec.Image, st.Started, stats, err == nil}), nil
}

// metricsWriter writes the text format; the bufio.Writer keeps the first error.
type metricsWriter struct{ w *bufio.Writer }

func (w metricsWriter) all(states map[container.State]int, running []sampled) {
	w.head("hcs_build_info", "gauge", "The version of hcs.")
	w.sample("hcs_build_info", 1, "version", programVersion())
	w.head("hcs_containers", "gauge", "Containers by state.")
	for _, s := range []container.State{container.Created, container.Running, container.Paused, container.Stopped, container.Lost} {
		w.sample("hcs_containers", float64(states[s]), "state", string(s))
	}
	w.head("hcs_container_info", "gauge", "What a container is made from.")
	for i := range running {
		s := &running[i]
		w.sample("hcs_container_info", 1, "id", s.id, "name", s.name, "image", s.image)
	}
	for _, m := range metrics {
		name := "hcs_container_" + m.name
		w.head(name, m.kind, m.help)
		for i := range running {
			if v, ok := m.value(&running[i]); ok {
				w.sample(name, v, "id", running[i].id, "name", running[i].name)
			}
		}
	}
}

func (w metricsWriter) head(name, kind, help string) {
	fmt.Fprintf(w.w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// labelEscaper knows what is special in the value of a label.
var labelEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func (w metricsWriter) sample(name string, value float64, labels ...string) {
	separator := "{"
	_, _ = w.w.WriteString(name)
	for i := 0; i < len(labels); i += 2 {
		fmt.Fprintf(w.w, `%s%s="%s"`, separator, labels[i], labelEscaper.Replace(labels[i+1]))
		separator = ","
	}
	_, _ = w.w.WriteString("} " + strconv.FormatFloat(value, 'g', -1, 64) + "\n")
}

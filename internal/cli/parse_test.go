package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/image"
)

func TestParseSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0": 0, "1024": 1024, "1b": 1, "512m": 512 << 20, "512M": 512 << 20, "1.5g": 3 << 29, "64KiB": 64 << 10, "2kb": 2 << 10,
		"1t": 1 << 40, ".5k": 512,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "m", "b", "-1", "1x", "1 2", "1mk", "inf", "nan", "0x10", "1e9_", "9000p", "1gg"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

func TestHumanSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0B", 999: "999B", 1000: "1kB", 1040000: "1.04MB", 48916167: "48.9MB", 5e15: "5PB", 4e18: "4000PB"} {
		if got := humanSize(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0B", 1023: "1023B", 1024: "1KiB", 3 << 19: "1.5MiB", 64 << 20: "64MiB"} {
		if got := binarySize(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

func TestParseVolume(t *testing.T) {
	t.Parallel()
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	a, err := filepath.Abs("/a")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]container.Mount{
		"/a:/b":        {Type: "bind", Source: a, Target: "/b"},
		"/a:/b:ro":     {Type: "bind", Source: a, Target: "/b", ReadOnly: true},
		"/a:/b:rw":     {Type: "bind", Source: a, Target: "/b"},
		"/a:/b:ro,rw":  {Type: "bind", Source: a, Target: "/b"},
		".:/b":         {Type: "bind", Source: here, Target: "/b"},
		"./sub/x:/b/c": {Type: "bind", Source: filepath.Join(here, "sub", "x"), Target: "/b/c"},
	} {
		got, err := parseVolume(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v %s", text, err, diff)
		}
	}
	for _, text := range []string{"", "/a", "name:/b", ":/b", "/a:/b:zz", "/a:/b:ro:x", "/a:/b:"} {
		if got, err := parseVolume(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

func TestParseMount(t *testing.T) {
	t.Parallel()
	abs := func(p string) string {
		p, err := filepath.Abs(p)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for text, want := range map[string]container.Mount{
		"type=bind,source=/a,target=/b":           {Type: "bind", Source: abs("/a"), Target: "/b"},
		"src=/a,dst=/b,readonly":                  {Type: "bind", Source: abs("/a"), Target: "/b", ReadOnly: true},
		"src=/a,destination=/b,ro=false":          {Type: "bind", Source: abs("/a"), Target: "/b"},
		"src=/a,dst=/b,iops=100,bandwidth=1m":     {Type: "bind", Source: abs("/a"), Target: "/b", IOPS: 100, Bandwidth: 1 << 20},
		"type=tmpfs,target=/t,tmpfs-size=64m":     {Type: "tmpfs", Target: "/t", Size: 64 << 20},
		`"source=/a,b",target=/c`:                 {Type: "bind", Source: abs("/a,b"), Target: "/c"},
		"Type=bind,SOURCE=x,target=/b,readonly=1": {Type: "bind", Source: abs("x"), Target: "/b", ReadOnly: true},
		"type=tmpfs,destination=/t,readonly=true": {Type: "tmpfs", Target: "/t", ReadOnly: true},
		"type=bind,source=/with = sign,target=/b": {Type: "bind", Source: abs("/with = sign"), Target: "/b"},
	} {
		got, err := parseMount(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v %s", text, err, diff)
		}
	}
	for _, text := range []string{
		"", "type=bind", "type=bind,target=/b", "source=/a", "type=volume,source=a,target=/b", "type=tmpfs,source=/a,target=/b",
		"source=/a,target=/b,tmpfs-size=1m", "source=volume,target=/b", "type=bind,source=/a,target=/b,bind-propagation=shared", "source=/a,target=/b,colour=red", "source=/a,target=/b,readonly=maybe",
		"type=tmpfs,target=/b,tmpfs-size=big", `source="/a,target=/b`,
	} {
		if got, err := parseMount(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

func TestVariables(t *testing.T) {
	t.Setenv("SET_HERE", "yes")
	file := filepath.Join(t.TempDir(), "env")
	text := "\ufeffFIRST=1\n# comment\n\n  INDENTED=kept as is \nSET_HERE\nUNSET_HERE\nQUOTED=\"q\"\nEMPTY=\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := variables([]string{file}, []string{"A=b=c", "SET_HERE", "UNSET_HERE", "FIRST=2"})
	want := []string{"FIRST=1", "INDENTED=kept as is ", "SET_HERE=yes", `QUOTED="q"`, "EMPTY=", "A=b=c", "SET_HERE=yes", "FIRST=2"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if diff := cmp.Diff([]string{"FIRST=2", "A=1"}, lastOfEach([]string{"FIRST=1", "A=1", "FIRST=2"})); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"=x\n", "A B=c\n"} {
		if err := os.WriteFile(file, []byte("OK=1\n"+bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := variables([]string{file}, nil); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: got %v, want an error about line 2", bad, err)
		}
	}
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"": {}, "10m": now.Add(-10 * time.Minute), "1770091506": now, "2026-02-03T04:05:06Z": now, "2026-02-03T04:05:06": now,
		"2026-02-03": time.Date(2026, 2, 3, 0, 0, 0, 0, time.UTC), "2026-02-03T05:05:06+01:00": now,
	} {
		if got, err := parseTime(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	if got, err := parseTime("yesterday", now); err == nil {
		t.Errorf("got %v, want an error", got)
	}
}

// TestSpec shows what flags become.
func TestSpec(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for line, want := range map[string]hcs.Spec{
		"img": {Image: "img", System: container.Spec{Network: "none"}},
		"-it --rm img sh -c x": {
			Image: "img", System: container.Spec{Network: "none", Ephemeral: true},
			Command: image.Overrides{Args: []string{"sh", "-c", "x"}, Terminal: image.WithTerminal},
			Pipes:   container.Pipes{Stdin: true},
		},
		"--name n --hostname h --read-only --net host -m 64m --cpus 1.5 --pids-limit 9 --stop-signal INT img --rm": {
			Image: "img", Command: image.Overrides{Args: []string{"--rm"}},
			System: container.Spec{
				Name: "n", Hostname: "h", ReadOnly: true, Network: "host", StopSignal: 2,
				Resources: container.Resources{Memory: 64 << 20, CPUs: 1.5, Pids: 9},
			},
		},
		"--pids-limit=-1 -w /w -u u:g -e A=b --entrypoint e img": {
			Image: "img", System: container.Spec{Network: "none"},
			Command: image.Overrides{Env: []string{"A=b"}, Cwd: "/w", User: "u:g", Entrypoint: []string{"e"}},
		},
		"--entrypoint= img x": {
			Image: "img", System: container.Spec{Network: "none"},
			Command: image.Overrides{Entrypoint: []string{}, Args: []string{"x"}},
		},
		"--rootfs " + dir + " sh": {
			System: container.Spec{Network: "none", RootDir: dir}, Command: image.Overrides{Args: []string{"sh"}},
		},
	} {
		var o containerOptions
		f := pflag.NewFlagSet("run", pflag.ContinueOnError)
		o.addFlags(f)
		if err := f.Parse(strings.Fields(line)); err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		got, err := o.spec(f.Args())
		got.Command.Args = append([]string(nil), got.Command.Args...) // no arguments are no arguments
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", line, err, diff)
		}
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	edit, err := changes([]string{`CMD ["a", "b"]`, "entrypoint run it", "ENV A=1", "env A=2", "LABEL k=v", "USER u", "WORKDIR /w", "STOPSIGNAL INT"})
	if err != nil {
		t.Fatal(err)
	}
	got := new(v1.Image)
	edit(got)
	c := got.Config
	want := v1.ImageConfig{
		Cmd: []string{"a", "b"}, Entrypoint: []string{"/bin/sh", "-c", "run it"}, Env: []string{"A=2"}, Labels: map[string]string{"k": "v"},
		User: "u", WorkingDir: "/w", StopSignal: "INT",
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{"", "CMD", "ENV A", "ENV =x", "RUN x"} {
		if _, err := changes([]string{text}); err == nil {
			t.Errorf("%q: want an error", text)
		}
	}
	if edit, err := changes(nil); edit != nil || err != nil {
		t.Errorf("no changes: got %v", err)
	}
}

// item is a row of a listing.
type item struct {
	Name  string
	Count int
}

func (item) header() []string  { return []string{"NAME", "COUNT"} }
func (i item) cells() []string { return []string{i.Name, strings.Repeat("x", i.Count)} }
func (i item) key() string     { return i.Name }

func TestList(t *testing.T) {
	t.Parallel()
	items := []item{{"a", 1}, {"<long name>", 3}}
	for format, want := range map[string]string{
		"table":                                  "NAME          COUNT\na             x\n<long name>   xxx\n",
		"json":                                   "{\"Name\":\"a\",\"Count\":1}\n{\"Name\":\"<long name>\",\"Count\":3}\n",
		"{{.Name}}/{{.Count}}":                   "a/1\n<long name>/3\n",
		`{{upper .Name}}\t{{json .}}`:            "A\t{\"Name\":\"a\",\"Count\":1}\n<LONG NAME>\t{\"Name\":\"<long name>\",\"Count\":3}\n",
		`table {{.Name}}\t{{.Count}}`:            "NAME          COUNT\na             1\n<long name>   3\n",
		`{{range split .Name " "}}{{.}};{{end}}`: "a;\n<long;name>;\n",
	} {
		var b strings.Builder
		if err := list(&b, listOptions{format: format}, items); err != nil || b.String() != want {
			t.Errorf("%s: %v\n%s", format, err, cmp.Diff(want, b.String()))
		}
	}
	var b strings.Builder
	if err := list(&b, listOptions{quiet: true}, items); err != nil || b.String() != "a\n<long name>\n" {
		t.Errorf("quiet: got %q, %v", b.String(), err)
	}
	for _, format := range []string{"{{", "{{.None}}", "{{nothing .}}"} {
		if err := list(&b, listOptions{format: format}, items); err == nil {
			t.Errorf("%s: want an error", format)
		}
	}
}

func TestSentence(t *testing.T) {
	t.Parallel()
	err := errors.Join(errors.New("first"), errors.Join(errors.New(" second "), errors.New("third")))
	if got := sentence(err); got != "first; second; third" {
		t.Errorf("got %q", got)
	}
}

func TestRoughly(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		time.Millisecond: "less than a second", time.Second: "1 second", 90 * time.Second: "90 seconds", 3 * time.Minute: "3 minutes",
		3 * time.Hour: "3 hours", 50 * time.Hour: "2 days", 800 * 24 * time.Hour: "2 years",
	} {
		if got := roughly(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

// TestStatsRow computes what two samples say.
func TestStatsRow(t *testing.T) {
	t.Parallel()
	start := time.Now()
	before := container.Stats{Time: start, CPU: time.Second}
	now := measured{"0123456789abcdef", "n", container.Stats{
		Time: start.Add(2 * time.Second), CPU: 2 * time.Second, MemoryUsage: 96 << 20, MemoryCache: 32 << 20, MemoryLimit: 256 << 20,
		Pids: 7, ReadBytes: 1000, WriteBytes: 2_000_000,
	}}
	want := statsRow{
		ID: "0123456789ab", Container: "0123456789ab", Name: "n", CPUPerc: "50.00%", MemUsage: "64MiB / 256MiB", MemPerc: "25.00%",
		NetIO: "0B / 0B", BlockIO: "1kB / 2MB", PIDs: "7",
	}
	if diff := cmp.Diff(want, newStatsRow(now, before)); diff != "" {
		t.Error(diff)
	}
	if r := newStatsRow(now, container.Stats{}); r.CPUPerc != "--" {
		t.Errorf("of one sample: CPU %s", r.CPUPerc)
	}
}

func TestFirstWord(t *testing.T) {
	t.Parallel()
	f := pflag.NewFlagSet("hcs", pflag.ContinueOnError)
	new(app).addFlags(f)
	for line, want := range map[string]string{
		"": "", "run -it x": "run", "--root run exec": "exec", "--root=x exec": "exec", "--help run": "run", "-h": "", "--root": "",
	} {
		if got := firstWord(f, strings.Fields(line)); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}

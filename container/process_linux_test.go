package container_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
)

func TestProcesses(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{Hostname: "box"})
	tests := []struct {
		name, script string
		options      []func(*container.ProcessSpec)
		code         int
		out, err     string
	}{
		{name: "exit status", script: "exit 7", code: 7},
		{name: "killed by a signal", script: "kill -9 $$", code: 137},
		{name: "streams apart", script: "echo out; echo err >&2", out: "out\n", err: "err\n"},
		{name: "standard input", script: "cat", options: opts(stdin("text\n")), out: "text\n"},
		{name: "no standard input", script: "cat; echo end", out: "end\n"},
		{name: "host name", script: "hostname", out: "box\n"},
		{name: "root", script: "id -u; pwd; echo $HOME", out: "0\n/\n/root\n"},
		{name: "user by number", script: "id -u; id -g", options: opts(user("1234:5678")), out: "1234\n5678\n"},
		{name: "user by name", script: "id -un", options: opts(user("nobody")), out: "nobody\n"},
		{name: "directory", script: "pwd", options: opts(dir("/tmp")), out: "/tmp\n"},
		{name: "environment", script: "echo $KEY", options: opts(variable("KEY=a b")), out: "a b\n"},
		{name: "pipe of an ordinary user", script: "echo x > /dev/stdout", options: opts(user("nobody")), out: "x\n"},
		{name: "large output", script: "yes 0123456789abcde | head -c 3000000 | wc -c", out: "3000000\n"},
		{name: "orphans", script: "(sleep 0.01; true) & exit 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := f.run(s, tt.script, tt.options...)
			if r.Code != tt.code || r.out != tt.out || r.err != tt.err {
				t.Errorf("got %d, %q, %q; want %d, %q, %q", r.Code, r.out, r.err, tt.code, tt.out, tt.err)
			}
		})
	}
}

// TestProgramBesideArgs runs a program under another name, and without a PATH.
func TestProgramBesideArgs(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	for _, tt := range []struct {
		spec container.ProcessSpec
		want string
	}{
		{container.ProcessSpec{Path: "/bin/busybox", Args: []string{"sh", "-c", "echo $0 $PATH"}}, "sh /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"},
		{container.ProcessSpec{Path: "busybox", Args: []string{"echo", "x"}}, "x\n"},
		{container.ProcessSpec{Args: []string{"echo", "y"}}, "y\n"},
		{container.ProcessSpec{Args: []string{"/bin/sh", "-c", "echo -$PATH-"}, Env: []string{"PATH="}}, "--\n"},
	} {
		var out bytes.Buffer
		tt.spec.Stdout = &out
		p, err := s.CreateProcess(t.Context(), &tt.spec)
		f.must(err)
		if st, err := p.Wait(t.Context()); err != nil || st.Code != 0 || out.String() != tt.want {
			t.Errorf("%q of %q: %q, %+v, %v", tt.spec.Args, tt.spec.Path, out.String(), st, err)
		}
	}
	_, err := s.CreateProcess(t.Context(), &container.ProcessSpec{Path: "/bin/nope", Args: []string{"sh"}})
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "start /bin/nope: ") {
		t.Errorf("got %v", err)
	}
}

func opts(list ...func(*container.ProcessSpec)) []func(*container.ProcessSpec) { return list }

func dir(path string) func(*container.ProcessSpec) {
	return func(s *container.ProcessSpec) { s.Dir = path }
}

func variable(kv string) func(*container.ProcessSpec) {
	return func(s *container.ProcessSpec) { s.Env = append(s.Env, kv) }
}

func TestProcessesThatDoNotStart(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	tests := []struct {
		name  string
		spec  container.ProcessSpec
		class func(error) bool
		text  string
	}{
		{"no program", container.ProcessSpec{}, errdefs.IsInvalidArgument, "no program given"},
		{"zero byte", container.ProcessSpec{Args: []string{"true", "a\x00b"}, Env: env}, errdefs.IsInvalidArgument, `"a\x00b" has a zero byte`},
		{"no variable", container.ProcessSpec{Args: []string{"true"}, Env: []string{"=x"}}, errdefs.IsInvalidArgument, `environment variable "=x" is malformed`},
		{"not in PATH", container.ProcessSpec{Args: []string{"nope"}, Env: env}, errdefs.IsNotFound, "start nope: executable file not found in $PATH"},
		{"no such file", container.ProcessSpec{Args: []string{"/bin/nope"}}, errdefs.IsNotFound, "start /bin/nope: no such file"},
		{"a directory", container.ProcessSpec{Args: []string{"/etc"}}, errdefs.IsPermissionDenied, "start /etc: permission denied"},
		{"not executable", container.ProcessSpec{Args: []string{"/etc/passwd"}}, errdefs.IsPermissionDenied, "start /etc/passwd: permission denied"},
		{"no such user", container.ProcessSpec{Args: []string{"/bin/true"}, User: "nope"}, errdefs.IsInvalidArgument, `user "nope" not found in the container's /etc/passwd`},
		{"no such group", container.ProcessSpec{Args: []string{"/bin/true"}, User: "0:nope"}, errdefs.IsInvalidArgument, `group "nope" not found in the container's /etc/group`},
		{"no such group to add", container.ProcessSpec{Args: []string{"/bin/true"}, Groups: []string{"0", "nope"}}, errdefs.IsInvalidArgument, `add group nope: group "nope" not found in the container's /etc/group`},
		{"no group to add", container.ProcessSpec{Args: []string{"/bin/true"}, Groups: []string{""}}, errdefs.IsInvalidArgument, `group "": give a name or an id`},
		{"no such directory", container.ProcessSpec{Args: []string{"/bin/true"}, Dir: "/nope"}, errdefs.IsInvalidArgument, "enter working directory /nope"},
		{"relative directory", container.ProcessSpec{Args: []string{"/bin/true"}, Dir: "tmp"}, errdefs.IsInvalidArgument, "working directory tmp is not absolute"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.CreateProcess(t.Context(), &tt.spec)
			if !tt.class(err) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %q", err, tt.text)
			}
		})
	}
	f.ok(s, "true") // it serves on
}

// TestGroups asks processes which groups they have, and writes to what is a
// group's.
func TestGroups(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *fixture) {
		specs := []container.Spec{{}}
		if f.config.Runtime == "native" {
			specs = append(specs, container.Spec{IDs: container.AutoIDs})
		}
		for _, spec := range specs {
			s := f.running(spec)
			f.ok(s, "echo video:x:44: >>/etc/group; touch /ours; chown 0:44 /ours; chmod 020 /ours")
			for _, tt := range []struct {
				user, want string
				groups     []string
			}{
				{"1000:1001", "1001 7 44", []string{"video", "7", "1001"}},
				{"user", "1000 10 44", []string{"44"}},
				{"", "0 10 44", []string{"44", "44", "root"}},
				{"1000:1001", "1001", nil},
			} {
				with := func(p *container.ProcessSpec) { p.User, p.Groups = tt.user, tt.groups }
				if got := f.ok(s, "id -G", with); got != tt.want {
					t.Errorf("ids %v: user %q with %q: got %q, want %q", spec.IDs, tt.user, tt.groups, got, tt.want)
				}
				if r := f.run(s, "echo x >>/ours", with); tt.user != "" && (r.Code == 0) != (tt.groups != nil) {
					t.Errorf("ids %v: user %q with %q: write: %d %s", spec.IDs, tt.user, tt.groups, r.Code, r.err)
				}
			}
		}
	})
}

func TestGroupWithoutID(t *testing.T) {
	f := newFixture(t)
	f.config.Runtime = "native"
	f.open()
	s := f.running(container.Spec{IDs: container.IDs{First: 3 << 29, Size: 1000}})
	_, err := s.CreateProcess(t.Context(), &container.ProcessSpec{Args: []string{"/bin/true"}, Groups: []string{"999", "1000"}})
	if !errdefs.IsInvalidArgument(err) || !strings.HasSuffix(err.Error(), "group 1000 has no id in the container's user namespace") {
		t.Errorf("got %v", err)
	}
	f.ok(s, "true", func(p *container.ProcessSpec) { p.Groups = []string{"999"} })
}

func TestSignals(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	ctx := t.Context()
	r, w := io.Pipe()
	p, err := s.CreateProcess(ctx, &container.ProcessSpec{
		Args: []string{"sh", "-c", "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.01; done"}, Env: env, Stdout: w,
	})
	f.must(err)
	buf := make([]byte, 6)
	_, err = io.ReadFull(r, buf)
	f.must(err)
	go io.Copy(io.Discard, r)
	f.must(p.Signal(ctx, syscall.SIGTERM))
	status, err := p.Wait(ctx)
	f.must(err)
	if status.Code != 3 {
		t.Errorf("exit status %d, want the trap's 3", status.Code)
	}
	f.must(p.Signal(ctx, syscall.SIGKILL)) // again: it has ended
	if again, err := p.Wait(ctx); err != nil || again != status {
		t.Errorf("second Wait: %v, %v", again, err)
	}
}

func TestStdinStaysOpenUntilClosed(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	in, feed := io.Pipe()
	out := new(lines)
	p, err := s.CreateProcess(t.Context(), &container.ProcessSpec{Args: []string{"cat"}, Env: env, Stdin: in, Stdout: out})
	f.must(err)
	_, err = feed.Write([]byte("first"))
	f.must(err)
	f.eventually("it comes back", func() bool { return out.has("first") })
	f.must(p.CloseStdin(t.Context()))
	f.must(p.CloseStdin(t.Context()))
	status, err := p.Wait(t.Context())
	f.must(err)
	if status.Code != 0 {
		t.Errorf("exit status %d", status.Code)
	}
}

// lines collects output and tells when some text has come.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

func TestTerminal(t *testing.T) {
	for _, role := range []container.Role{container.Additional, container.Main} {
		f := newFixture(t)
		s := f.running(container.Spec{})
		in, keys := io.Pipe()
		out := new(lines)
		p, err := s.CreateProcess(t.Context(), &container.ProcessSpec{
			Role: role, Args: []string{"sh", "-c", "stty size; tty; read x; stty size; exit 3"}, Env: env,
			Terminal: true, Rows: 24, Cols: 80, Stdin: in, Stdout: out,
		})
		f.must(err)
		f.eventually("the terminal has its first size", func() bool { return out.has("24 80") && out.has("/dev/pts/0") })
		f.must(p.Resize(t.Context(), 50, 132))
		_, err = keys.Write([]byte("\n"))
		f.must(err)
		status, err := p.Wait(t.Context())
		f.must(err)
		if status.Code != 3 || !out.has("50 132") {
			t.Errorf("role %d: exit status %d, output %q", role, status.Code, out.text.String())
		}
	}
}

func TestTerminalWithoutStreams(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	for _, role := range []container.Role{container.Additional, container.Main} {
		p, err := s.CreateProcess(t.Context(), &container.ProcessSpec{
			Role: role, Terminal: true, Args: []string{"sh", "-c", "yes | head -c 200000; exit 3"}, Env: env,
		})
		f.must(err)
		if status, err := p.Wait(t.Context()); err != nil || status.Code != 3 {
			t.Errorf("role %d: %v, %v", role, status, err)
		}
	}
}

func TestRequestsThatAreTooLarge(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	_, err := s.CreateProcess(t.Context(), &container.ProcessSpec{
		Args: []string{"true"}, Env: append(env, "BIG="+strings.Repeat("x", 5<<20)),
	})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "4 MiB") {
		t.Errorf("5 MiB: %v", err)
	}
	_, err = s.CreateProcess(t.Context(), &container.ProcessSpec{
		Args: []string{"true"}, Env: append(env, "BIG="+strings.Repeat("x", 200<<10)),
	})
	if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "argument list too long") {
		t.Errorf("more than the kernel takes: %v", err)
	}
	f.ok(s, "true")
}

// TestOutputGrace has a process leave another that holds its output.
func TestOutputGrace(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	out := new(lines)
	p, err := s.CreateProcess(t.Context(), &container.ProcessSpec{
		Args: []string{"sh", "-c", "sleep 1000 & echo started; read x; exit 0"}, Env: env, Stdin: blocked{}, Stdout: out,
		OutputGrace: 10 * time.Millisecond,
	})
	f.must(err)
	f.eventually("it has started another", func() bool { return out.has("started") }) // the grace may be too short for that
	f.must(p.CloseStdin(t.Context()))
	if status, err := p.Wait(t.Context()); err != nil || status.Code != 0 || !out.has("started") {
		t.Errorf("%v, %v, %q", status, err, out.text.String())
	}
	p, err = s.CreateProcess(t.Context(), &container.ProcessSpec{
		Args: []string{"sh", "-c", "sleep 1000 & echo started"}, Env: env, Stdout: out,
	})
	f.must(err)
	f.eventually("it has ended", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := p.Wait(ctx) // no grace: it waits, but not longer than its context
		return errors.Is(err, context.DeadlineExceeded)
	})
}

func TestCancelledCallsReturn(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	p, err := s.CreateProcess(t.Context(), &container.ProcessSpec{Args: []string{"sleep", "1000"}, Env: env})
	f.must(err)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := p.Wait(ctx); !errors.Is(err, why) {
		t.Errorf("Wait: %v", err)
	}
	if _, err := s.Wait(ctx); !errors.Is(err, why) {
		t.Errorf("System.Wait: %v", err)
	}
	f.must(p.Signal(t.Context(), syscall.SIGKILL))
	if status, err := p.Wait(t.Context()); err != nil || status.Signal != syscall.SIGKILL {
		t.Errorf("got %v, %v", status, err)
	}
}

func TestOpenProcess(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{Name: "web"})
	ctx := t.Context()
	p, err := s.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"sleep", "1000"}, Env: env})
	f.must(err)
	other, err := f.Open(ctx, "web")
	f.must(err)
	q, err := other.OpenProcess(ctx, p.Pid())
	f.must(err)
	f.must(q.Signal(ctx, syscall.SIGTERM))
	first, err := p.Wait(ctx)
	f.must(err)
	second, err := q.Wait(ctx)
	f.must(err)
	if first != second || first.Signal != syscall.SIGTERM {
		t.Errorf("got %v and %v", first, second)
	}
	ended, err := other.OpenProcess(ctx, p.Pid())
	f.must(err)
	select {
	case <-ended.Done():
	default:
		t.Error("opened after the end, it has not ended")
	}
	if third, err := ended.Wait(ctx); err != nil || third != first {
		t.Errorf("opened after the end: %v, %v", third, err)
	}
	f.must(other.Close())
}

func TestOneWriterForBothStreams(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	for _, role := range []container.Role{container.Additional, container.Main} {
		var both bytes.Buffer
		p, err := s.CreateProcess(t.Context(), &container.ProcessSpec{
			Role: role, Args: []string{"sh", "-c", "echo 1; echo 2 >&2; echo 3"}, Env: env, Stdout: &both, Stderr: &both,
		})
		f.must(err)
		_, err = p.Wait(t.Context())
		f.must(err)
		if got := both.String(); role == container.Additional && got != "1\n2\n3\n" || len(got) != 6 {
			t.Errorf("role %d: got %q", role, got)
		}
	}
}

func TestManyProcessesAtOnce(t *testing.T) {
	f := newFixture(t)
	s := f.running(container.Spec{})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				var out bytes.Buffer
				p, err := s.CreateProcess(t.Context(), &container.ProcessSpec{Args: []string{"echo", "x"}, Env: env, Stdout: &out})
				if err != nil {
					t.Error(err)
					return
				}
				if status, err := p.Wait(t.Context()); err != nil || status.Code != 0 || out.String() != "x\n" {
					t.Errorf("got %v, %v, %q", status, err, out.String())
				}
			}
		})
	}
	wg.Wait()
}

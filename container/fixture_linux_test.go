package container_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/rootfs"
)

func TestMain(m *testing.M) {
	for role, order := range map[string]interface{ run() error }{
		childRole: new(childOrder), programRole: new(programOrder), modifierRole: new(modifierOrder), attacherRole: new(attacherOrder),
	} {
		if os.Getenv(role) != "" {
			os.Exit(obey(role, order))
		}
	}
	if os.Getenv(listenerRole) != "" {
		if err := listen(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(probeRole) != "" {
		os.Exit(probe())
	}
	if os.Getenv(attackRole) != "" {
		os.Exit(beHostile())
	}
	os.Exit(testenv.Main(m))
}

// runtimes are the starters that there are: each is to make the same container.
var runtimes = []string{"native", "crun", "runc"}

// eachRuntime runs the test with every starter.
func eachRuntime(t *testing.T, test func(t *testing.T, f *fixture)) {
	for _, runtime := range runtimes {
		t.Run(runtime, func(t *testing.T) {
			f := newFixture(t)
			f.config.Runtime = runtime
			f.open()
			test(t, f)
		})
	}
}

// fixture is a service of its own with the busybox layer.
type fixture struct {
	*container.Service
	t      testing.TB
	dir    string
	config container.Config
	layers []digest.Digest
}

// newFixture makes a service in a directory of the test's; at the test's end
// nothing of it may be left on the machine.
func newFixture(t testing.TB) *fixture {
	t.Helper()
	bin := testenv.Programs(t)
	testenv.NeedKernel(t, testenv.MountAPI, testenv.PidFD, testenv.Cgroups)
	dir := t.TempDir()
	parent := "/hcs-test-" + filepath.Base(filepath.Dir(dir))
	testenv.NoLeaks(t, testenv.Scope{Dir: dir, Children: true, Cgroup: parent, Settles: true})
	f := &fixture{t: t, dir: dir, config: container.Config{
		Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run"), Libexec: bin, CgroupParent: parent,
		Runtime: os.Getenv("HCS_RUNTIME"),
	}}
	f.open()
	t.Cleanup(f.clean)
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	layers, err := rootfs.Open(rootfs.Config{Dir: filepath.Join(f.dir, "layers")})
	f.must(err)
	tar := testenv.BusyboxLayer(f.t)
	id := fileDigest(f.t, tar)
	_, err = layers.Unpack(context.Background(), id, func() (io.ReadCloser, error) { return os.Open(tar) })
	f.must(err)
	f.layers, f.config.Layers = []digest.Digest{id}, layers
	f.Service, err = container.Open(f.config)
	f.must(err)
}

func fileDigest(t testing.TB, path string) digest.Digest {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return digest.NewDigestFromBytes(digest.SHA256, sha256Sum(text))
}

func sha256Sum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

// clean ends and removes all systems.
func (f *fixture) clean() {
	ctx := context.Background()
	systems, err := f.Systems(ctx)
	f.check(err)
	for _, s := range systems {
		f.check(s.Terminate(ctx))
	}
	for _, s := range systems {
		f.check(s.Close())
	}
	_, err = f.Prune(ctx)
	f.check(err)
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) check(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Error(err)
	}
}

// running makes a system that runs.
func (f *fixture) running(spec container.Spec) *container.System {
	f.t.Helper()
	s := f.created(spec)
	f.must(s.Start(f.t.Context()))
	return s
}

func (f *fixture) created(spec container.Spec) *container.System {
	f.t.Helper()
	if spec.RootDir == "" {
		spec.Layers = f.layers
	}
	s, err := f.Create(f.t.Context(), spec)
	f.must(err)
	f.t.Cleanup(func() { s.Close() })
	return s
}

// env is what the images' configuration gives processes.
var env = []string{"PATH=/bin:/usr/bin:/sbin"}

// result is how a process ended and what it wrote.
type result struct {
	container.ExitStatus
	out, err string
}

// run runs a shell script in the system.
func (f *fixture) run(s *container.System, script string, options ...func(*container.ProcessSpec)) result {
	f.t.Helper()
	var out, errs bytes.Buffer
	spec := &container.ProcessSpec{Args: []string{"sh", "-c", script}, Env: env, Stdout: &out, Stderr: &errs}
	for _, o := range options {
		o(spec)
	}
	p, err := s.CreateProcess(f.t.Context(), spec)
	f.must(err)
	status, err := p.Wait(f.t.Context())
	f.must(err)
	return result{status, out.String(), errs.String()}
}

// ok is run for scripts that must succeed; it returns their trimmed output.
func (f *fixture) ok(s *container.System, script string, options ...func(*container.ProcessSpec)) string {
	f.t.Helper()
	r := f.run(s, script, options...)
	if r.Code != 0 {
		f.t.Fatalf("%q: exit status %d, output %q, error %q", script, r.Code, r.out, r.err)
	}
	return strings.TrimSpace(r.out)
}

func stdin(text string) func(*container.ProcessSpec) {
	return func(s *container.ProcessSpec) { s.Stdin = strings.NewReader(text) }
}

func user(name string) func(*container.ProcessSpec) {
	return func(s *container.ProcessSpec) { s.User = name }
}

func main(s *container.ProcessSpec) { s.Role = container.Main }

// eventually waits for what another process does in its own time.
func (f *fixture) eventually(what string, ok func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(testenv.Patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("waited in vain until %s", what)
		}
	}
}

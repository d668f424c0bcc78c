package container_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/internal/testenv"
)

// newEndpointFixture is newFixture with veths. All endpoints of the test are to be gone at its end.
func newEndpointFixture(t *testing.T, runtime string) (*fixture, *testenv.Veths) {
	t.Helper()
	testenv.NeedKernel(t, testenv.NetNamespaces)
	testenv.NeedCommand(t, "ip", "nsenter")
	f, v := newFixture(t), new(testenv.Veths)
	f.config.Endpoints, f.config.Runtime = v, runtime
	f.open()
	return f, v
}

// endpoint makes the id of an endpoint, which is nobody's at the test's end.
func (f *fixture) endpoint() string {
	f.t.Helper()
	id := testenv.NewEndpoint(f.t)
	f.t.Cleanup(func() {
		if list := f.endpointLinks(); len(list) > 0 {
			f.t.Errorf("taken to be attached: %q", list)
		}
	})
	return id
}

func (f *fixture) endpointLinks() []string {
	list, err := filepath.Glob(filepath.Join(f.config.Root, "endpoints", "*"))
	f.check(err)
	return list
}

// wantTCP has a process of the system connect to this one by way of the endpoint.
func (f *fixture) wantTCP(s *container.System, endpoint string) {
	f.t.Helper()
	host, port := new(testenv.Veths).Greet(f.t, endpoint)
	if got := f.ok(s, "nc -w 20 "+host+" "+port+" </dev/null"); got != endpoint {
		f.t.Errorf("it hears %q", got)
	}
}

// wantLinks compares what interfaces the system has, beside the loopback, with those of the endpoints.
func (f *fixture) wantLinks(s *container.System, endpoints ...string) {
	f.t.Helper()
	var want []string
	for _, e := range endpoints {
		name, _, _ := new(testenv.Veths).Link(e)
		want = append(want, name)
	}
	got := slices.DeleteFunc(strings.Fields(f.ok(s, "ls /sys/class/net")), func(n string) bool { return n == "lo" })
	slices.Sort(want)
	if !slices.Equal(got, want) {
		f.t.Errorf("it has the links %q, want %q", got, want)
	}
}

// TestEndpoints has a system with one endpoint from its start, and with another while it runs.
func TestEndpoints(t *testing.T) {
	for _, runtime := range runtimes {
		for _, ids := range []container.IDs{{}, container.AutoIDs} {
			if runtime != "native" && ids != (container.IDs{}) {
				continue // not theirs
			}
			t.Run(fmt.Sprintf("%s/%v", runtime, ids == container.AutoIDs), func(t *testing.T) {
				f, v := newEndpointFixture(t, runtime)
				if ids == container.AutoIDs {
					testenv.NeedKernel(t, testenv.MappedMounts)
				}
				ctx := t.Context()
				first, second := f.endpoint(), f.endpoint()
				s := f.created(container.Spec{Endpoints: []string{first}, IDs: ids})
				if got := v.Calls(); got != "" {
					t.Errorf("created: %s", got)
				}
				f.must(s.Start(ctx))
				f.wantTCP(s, first)
				f.must(s.Modify(ctx, container.Change{AddEndpoints: []string{second}}))
				f.wantTCP(s, second)
				f.wantLinks(s, first, second)
				f.must(s.Modify(ctx, container.Change{RemoveEndpoints: []string{first}}))
				f.wantLinks(s, second)
				f.wantTCP(s, second)
				f.must(s.Terminate(ctx))
				want := fmt.Sprintf("attach %s, attach %s, detach %s, detach %s", first, second, first, second)
				if got := v.Calls(); got != want {
					t.Errorf("the calls are %s, want %s", got, want)
				}
				f.must(s.Start(ctx)) // with what it is now
				f.wantLinks(s, second)
				f.must(s.BeginTerminate(ctx))
				_, err := s.Wait(ctx)
				f.must(err)
				f.must(s.Delete(ctx))
				if got := v.Calls(); got != fmt.Sprintf("attach %s, detach %s", second, second) {
					t.Errorf("the calls are %s", got)
				}
			})
		}
	}
}

// TestEndpointFails has endpoints that cannot be attached: all is as it was before.
func TestEndpointFails(t *testing.T) {
	f, v := newEndpointFixture(t, "")
	ctx := t.Context()
	good, bad := f.endpoint(), f.endpoint()
	errBad := errors.New("nothing to plug it in")
	v.After = func(endpoint string) error {
		if endpoint == bad {
			return errBad
		}
		return nil
	}
	all := fmt.Sprintf("attach %s, attach %s, detach %s, detach %s", good, bad, bad, good)
	s := f.created(container.Spec{Endpoints: []string{good, bad}, Ephemeral: true})
	if err := s.Start(ctx); !errors.Is(err, errBad) || !strings.Contains(err.Error(), bad) {
		t.Errorf("start: %v", err)
	}
	if got := v.Calls(); got != all {
		t.Errorf("the calls are %s, want %s", got, all)
	}
	if st, err := s.Status(ctx); st.State != container.Created || err != nil {
		t.Errorf("it is %v, %v", st.State, err)
	}
	f.must(s.Modify(ctx, container.Change{RemoveEndpoints: []string{good, bad}}))
	f.must(s.Start(ctx))
	err := s.Modify(ctx, container.Change{AddEndpoints: []string{good, bad}, Resources: container.ResourcesChange{Pids: new(int64(50))}})
	if !errors.Is(err, errBad) {
		t.Errorf("modify: %v", err)
	}
	if got := v.Calls(); got != all {
		t.Errorf("the calls are %s, want %s", got, all)
	}
	// What comes after them fails.
	err = s.Modify(ctx, container.Change{AddEndpoints: []string{good}, AddDevices: []container.Device{{Source: "/dev/null"}}})
	if err == nil {
		t.Error("there is a device twice")
	}
	f.wantLinks(s)
	if r := s.Record(); len(r.Spec.Endpoints) > 0 || r.Spec.Resources.Pids > 0 {
		t.Errorf("recorded: %+v", r.Spec)
	}
	for what, change := range map[string]container.Change{
		"not one of its": {RemoveEndpoints: []string{good}},
		"twice":          {AddEndpoints: []string{good, good}},
		"a bad id":       {AddEndpoints: []string{"../x"}},
		"an empty id":    {AddEndpoints: []string{""}},
	} {
		if err := s.Modify(ctx, change); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	f.must(s.Terminate(ctx))
}

// TestEndpointIsOneSystems has two systems that want the same endpoint.
func TestEndpointIsOneSystems(t *testing.T) {
	f, v := newEndpointFixture(t, "")
	ctx := t.Context()
	e := f.endpoint()
	a, b := f.created(container.Spec{Endpoints: []string{e}}), f.created(container.Spec{Endpoints: []string{e}})
	f.must(a.Start(ctx))
	if err := b.Start(ctx); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), container.ShortID(a.ID())) {
		t.Errorf("start the second: %v", err)
	}
	f.wantTCP(a, e)
	f.must(blind(f).terminate(a.ID())) // nobody who knows of endpoints sees it end
	v.Calls()
	f.must(b.Start(ctx))
	f.wantTCP(b, e)
	if got := v.Calls(); got != fmt.Sprintf("detach %s, attach %s", e, e) {
		t.Errorf("the calls are %s", got)
	}
	f.must(a.Delete(ctx)) // which has nothing any more
	f.wantTCP(b, e)
	f.must(b.Terminate(ctx))
}

// blinded is the same service without anything that makes networks, as programs have it that do not use them.
type blinded struct{ *container.Service }

func blind(f *fixture) blinded {
	f.t.Helper()
	c := f.config
	c.Endpoints = nil
	s, err := container.Open(c)
	f.must(err)
	return blinded{s}
}

func (b blinded) terminate(id string) error {
	s, err := b.Open(context.Background(), id)
	if err == nil {
		err = errors.Join(s.Terminate(context.Background()), s.Close())
	}
	return err
}

// TestNoNetworks asks for endpoints where nothing makes networks.
func TestNoNetworks(t *testing.T) {
	f, v := newEndpointFixture(t, "")
	ctx := t.Context()
	e := f.endpoint()
	s := f.created(container.Spec{Endpoints: []string{e}, Ephemeral: true})
	none := blind(f)
	same, err := none.Open(ctx, s.ID())
	f.must(err)
	_, cerr := none.Create(ctx, container.Spec{Layers: f.layers, Endpoints: []string{e}})
	for what, err := range map[string]error{
		"create": cerr, "start": same.Start(ctx), "modify": same.Modify(ctx, container.Change{AddEndpoints: []string{e + "x"}}),
	} {
		if !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), e) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = f.Create(ctx, container.Spec{Layers: f.layers, Endpoints: []string{e}, Network: container.NetworkHost})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("in the host's network: %v", err)
	}
	// Such a program ends the system, and what is left of it.
	f.must(s.Start(ctx))
	f.must(same.Terminate(ctx))
	f.must(same.Close())
	_, err = none.Prune(ctx)
	f.must(err)
	if got := v.Calls(); got != "attach "+e {
		t.Errorf("the calls are %s", got)
	}
	p, err := f.Prune(ctx)
	if err != nil || len(p.Leftovers) != 1 || filepath.Base(p.Leftovers[0]) != e || v.Calls() != "detach "+e {
		t.Errorf("pruned: %+v, %v", p, err)
	}
}

// attacherRole is set for this test's own program where it is to be killed while it attaches an endpoint, or after.
const attacherRole = "HCS_TEST_ATTACHER"

type attacherOrder struct {
	host
	ID          string
	Modify      string // adds the endpoint; else the system is started
	When, Where string // the word of a moment, and the endpoint
}

func (o *attacherOrder) run() error {
	stay := func(when string) func(string) error {
		return func(endpoint string) error {
			if when == o.When && endpoint == o.Where {
				fmt.Println(when)
				testenv.AwaitKill()
			}
			return nil
		}
	}
	o.Config.Endpoints = &testenv.Veths{Before: stay("before"), After: stay("after")}
	service, err := o.open()
	if err != nil {
		return err
	}
	s, err := service.Open(context.Background(), o.ID)
	if err != nil {
		return err
	}
	if o.Modify == "" {
		err = s.Start(context.Background())
	} else {
		err = s.Modify(context.Background(), container.Change{AddEndpoints: []string{o.Modify}})
	}
	if err != nil {
		return err
	}
	return stay("done")(o.Where)
}

// TestAttacherKilled kills who starts or changes a system at the moments that matter: the next one to start, change or delete it,
// or to prune, finds what is to be ended.
func TestAttacherKilled(t *testing.T) {
	for _, next := range []string{"start", "modify", "delete", "prune"} {
		for _, when := range []string{"before", "after", "done"} {
			for _, what := range []string{"start", "modify"} {
				if next == "modify" && what == "start" || (next == "delete" || next == "prune") && when != "after" {
					continue
				}
				t.Run(strings.Join([]string{next, "after", when, what}, " "), func(t *testing.T) {
					f, v := newEndpointFixture(t, "")
					first, second := f.endpoint(), f.endpoint()
					s := f.created(container.Spec{Endpoints: []string{first}})
					f.must(s.Close()) // who has created it does not want to start it
					o := attacherOrder{host: f.host(), ID: s.ID(), When: when, Where: first}
					if what == "modify" {
						f.must(s.Start(t.Context()))
						o.Modify, o.Where = second, second
					}
					cmd := f.child(attacherRole, o, when)
					f.must(cmd.Process.Kill())
					_ = cmd.Wait()
					v.Calls()
					f.goOn(s, v, next, o)
				})
			}
		}
	}
}

// goOn does what comes next after somebody was killed.
func (f *fixture) goOn(s *container.System, v *testenv.Veths, next string, o attacherOrder) {
	f.t.Helper()
	ctx := f.t.Context()
	runs := o.Modify != "" || o.When == "done"
	if !runs { // the shim sees that nobody wants the system any more
		f.eventually("the system has not started", func() bool {
			st, err := s.Status(ctx)
			f.must(err)
			return st.State == container.Created
		})
	}
	wanted := s.Record().Spec.Endpoints
	if o.Modify != "" && o.When == "done" {
		wanted = append(slices.Clone(wanted), o.Modify)
	}
	switch next {
	case "start":
		f.must(f.startWhenFree(s))
		if runs && o.Modify == "" {
			f.wantLinks(s, wanted...)
		}
		if !runs {
			f.wantLinks(s, wanted...)
			f.wantTCP(s, wanted[0])
		}
	case "modify":
		f.must(f.modifyWhenFree(s.ID(), container.Change{Resources: container.ResourcesChange{CPUs: new(1.0)}}))
		f.wantLinks(s, wanted...)
		f.wantTCP(s, wanted[0])
	case "prune":
		_, err := f.Prune(ctx)
		f.must(err)
		if runs {
			f.wantLinks(s, wanted...)
			f.wantTCP(s, wanted[0])
		}
	}
	if runs || next == "start" {
		f.must(s.Terminate(ctx))
	}
	if err := s.Delete(ctx); err != nil && !(errdefs.IsNotFound(err) && next == "prune") {
		f.t.Error(err)
	}
	if got := v.Calls(); !strings.Contains(got, "detach "+o.Where) {
		f.t.Errorf("the calls are %s", got)
	}
}

// startWhenFree starts a system that a program's end may still keep busy.
func (f *fixture) startWhenFree(s *container.System) (err error) {
	f.eventually("it starts", func() bool {
		err = s.Start(f.t.Context())
		return !errdefs.IsFailedPrecondition(err)
	})
	return err
}

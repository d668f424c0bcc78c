package cli

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
)

// psFilter judges containers as docker's filters do (https://docs.docker.com/reference/cli/docker/container/ls/#filter): each
// key has to match, by any of its values.
type psFilter struct {
	tests    map[string][]psTest
	anyState bool // containers that do not run are meant too
}

type psTest func(*container.Record, *container.Status) bool

// psTests make the test of a key's value; all are the containers that there are.
var psTests = map[string]func(value string, all []*container.System) (psTest, error){
	"id":       idTest,
	"name":     nameTest,
	"status":   statusTest,
	"exited":   exitedTest,
	"label":    labelTest,
	"ancestor": imageTest,
	"network":  networkTest,
	"volume":   mountTest,
	"before":   func(v string, all []*container.System) (psTest, error) { return ageTest(v, all, time.Time.Before) },
	"since":    func(v string, all []*container.System) (psTest, error) { return ageTest(v, all, time.Time.After) },
}

func filterKeys() []string { return slices.Sorted(maps.Keys(psTests)) }

func parseFilters(list []string, all []*container.System) (psFilter, error) {
	f := psFilter{tests: make(map[string][]psTest)}
	for _, text := range list {
		key, value, ok := strings.Cut(text, "=")
		makeTest := psTests[key]
		if !ok || makeTest == nil {
			return f, usage(fmt.Sprintf("ps: filter %q: use KEY=VALUE with one of %s", text, strings.Join(filterKeys(), ", ")))
		}
		test, err := makeTest(value, all)
		if err != nil {
			return f, fmt.Errorf("ps: filter %q: %w", text, err)
		}
		if key == "label" { // of which all have to be there
			key = text
		}
		f.tests[key] = append(f.tests[key], test)
		f.anyState = f.anyState || key == "status" || key == "exited"
	}
	return f, nil
}

func (f *psFilter) matches(r *container.Record, st *container.Status) bool {
	for tests := range maps.Values(f.tests) {
		if !slices.ContainsFunc(tests, func(test psTest) bool { return test(r, st) }) {
			return false
		}
	}
	return true
}

// nameTest is a regular expression, as docker has it, of which plain text is one too.
func nameTest(value string, _ []*container.System) (psTest, error) {
	// Docker's names have a slash before them, which some put into their expressions.
	re, err := regexp.Compile(strings.Replace(strings.TrimPrefix(value, "/"), "^/", "^", 1))
	if err != nil {
		return nil, usage(err.Error())
	}
	return func(r *container.Record, _ *container.Status) bool { return re.MatchString(r.Name()) }, nil
}

func idTest(value string, _ []*container.System) (psTest, error) {
	return func(r *container.Record, _ *container.Status) bool { return strings.HasPrefix(r.ID, value) }, nil
}

// statusTest takes our states and docker's.
func statusTest(value string, _ []*container.System) (psTest, error) {
	state := container.State(value)
	for ours, theirs := range dockerStates {
		if theirs == value {
			state = ours
		}
	}
	states := []container.State{
		container.Created, container.Starting, container.Running, container.Paused, container.Stopping, container.Stopped, container.Lost,
	}
	if !slices.Contains(states, state) && value != "restarting" && value != "removing" { // which none ever is
		return nil, usage("there is no such state: use one of " + strings.Trim(fmt.Sprint(states), "[]"))
	}
	return func(_ *container.Record, st *container.Status) bool { return st.State == state }, nil
}

func exitedTest(value string, _ []*container.System) (psTest, error) {
	code, err := strconv.Atoi(value)
	if err != nil {
		return nil, usage("give an exit status, a number")
	}
	return func(_ *container.Record, st *container.Status) bool {
		return st.State == container.Stopped && st.ExitCode == code
	}, nil
}

func labelTest(value string, _ []*container.System) (psTest, error) {
	key, want, both := strings.Cut(value, "=")
	return func(r *container.Record, _ *container.Status) bool {
		got, ok := r.Spec.Labels[key]
		return ok && (!both || got == want)
	}, nil
}

// imageTest takes an image's name, with a tag or for any, and its id or the beginning of that.
func imageTest(value string, _ []*container.System) (psTest, error) {
	return func(r *container.Record, _ *container.Status) bool {
		return sameImage(r.Spec.Image, value) || len(value) >= leastID && strings.HasPrefix(r.Spec.ImageID.Encoded(), strings.TrimPrefix(value, "sha256:"))
	}, nil
}

// sameImage reports whether a name is what is asked for, where a name without tag stands for any.
func sameImage(name, ask string) bool {
	repository, tag := splitTag(name)
	askedRepository, askedTag := splitTag(ask)
	return name != "" && repository == askedRepository && (askedTag == "" || askedTag == tag)
}

func networkTest(value string, _ []*container.System) (psTest, error) {
	return func(r *container.Record, _ *container.Status) bool {
		return string(r.Spec.Network) == value || r.Spec.Network == "" && value == string(container.NetworkNone)
	}, nil
}

// mountTest takes the source or the target of a mount.
func mountTest(value string, _ []*container.System) (psTest, error) {
	return func(r *container.Record, _ *container.Status) bool {
		return slices.ContainsFunc(r.Spec.Mounts, func(m container.Mount) bool { return m.Source == value || m.Target == value })
	}, nil
}

// ageTest compares with when another container was made.
func ageTest(value string, all []*container.System, is func(t, of time.Time) bool) (psTest, error) {
	i := slices.IndexFunc(all, func(s *container.System) bool {
		return s.Name() == value || len(value) >= leastID && strings.HasPrefix(s.ID(), value)
	})
	if i < 0 {
		return nil, fault(errdefs.ErrNotFound, "no such container")
	}
	created := all[i].Record().Created
	return func(r *container.Record, _ *container.Status) bool { return is(r.Created, created) }, nil
}

package cli

import (
	"cmp"
	"strconv"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/image"
)

// dockerView has what scripts for docker ask "inspect --format" for most, by docker's names. JSON does not show it again.
type dockerView struct {
	Id     string
	Image  string // the image's id
	Path   string
	Args   []string
	State  dockerState
	Config dockerConfig
	Mounts []dockerMount

	HostConfig      dockerHostConfig
	NetworkSettings dockerNetwork
	RestartCount    int // nothing restarts it
	Platform        string
}

type dockerMount struct {
	Type, Source, Destination string
	RW                        bool
}

type dockerHostConfig struct {
	Memory, MemorySwap, NanoCpus, CpuWeight, PidsLimit int64
	CpusetCpus, NetworkMode                            string
	Binds, CapAdd, CapDrop, Dns, ExtraHosts, GroupAdd  []string
	ReadonlyRootfs, AutoRemove, Privileged             bool
	RestartPolicy                                      struct{ Name string }
}

// dockerNetwork is empty: networks are to come.
type dockerNetwork struct {
	IPAddress, MacAddress, Gateway string
	Ports, Networks                map[string]struct{}
}

type dockerState struct {
	Status, Error         string
	Running, Paused       bool
	Pid, ExitCode         int
	StartedAt, FinishedAt time.Time
}

type dockerConfig struct {
	Hostname, User, WorkingDir, Image string
	Tty                               bool
	StopTimeout                       *int
	Env, Cmd                          []string
	Labels                            map[string]string
}

// dockerStates are docker's words where they are not ours.
var dockerStates = map[container.State]string{container.Stopped: "exited", container.Lost: "dead"}

func newDockerView(r *container.Record, st *container.Status) dockerView {
	v := dockerView{
		Id: r.ID, Image: r.Spec.ImageID.String(),
		State: dockerState{
			Status: string(st.State), Error: st.Reason, Running: isRunning(*st), Paused: st.State == container.Paused, Pid: st.Pid,
			ExitCode: st.ExitCode, StartedAt: st.Started, FinishedAt: st.Ended,
		},
		Config: dockerConfig{Hostname: r.Spec.Hostname, Image: r.Spec.Image, Labels: r.Spec.Labels, StopTimeout: r.Spec.StopTimeout},
	}
	v.Mounts, v.HostConfig = dockerMounts(r.Spec.Mounts), newDockerHostConfig(&r.Spec)
	v.Platform = "linux"
	if word := dockerStates[st.State]; word != "" {
		v.State.Status = word
	}
	if v.Config.Hostname == "" {
		v.Config.Hostname = container.ShortID(r.ID)
	}
	if m := r.Spec.Main; m != nil {
		v.Path, v.Args = m.Args[0], m.Args[1:]
		v.Config.User, v.Config.WorkingDir, v.Config.Tty, v.Config.Env, v.Config.Cmd = m.User, m.Dir, m.Terminal, m.Env, m.Args
	}
	return v
}

func dockerMounts(list []container.Mount) []dockerMount {
	mounts := make([]dockerMount, len(list))
	for i, m := range list {
		mounts[i] = dockerMount{cmp.Or(m.Type, "bind"), m.Source, m.Target, !m.ReadOnly}
	}
	return mounts
}

func newDockerHostConfig(s *container.Spec) dockerHostConfig {
	c := dockerHostConfig{
		Memory: s.Resources.Memory, MemorySwap: s.Resources.MemorySwap, NanoCpus: int64(s.Resources.CPUs * 1e9), CpuWeight: s.Resources.CPUWeight,
		PidsLimit: s.Resources.Pids, CpusetCpus: s.Resources.CPUSet, NetworkMode: string(cmp.Or(s.Network, container.NetworkNone)),
		CapAdd: s.Security.CapAdd, CapDrop: s.Security.CapDrop, Dns: s.DNS.Servers, ReadonlyRootfs: s.ReadOnly, AutoRemove: s.Ephemeral,
	}
	c.RestartPolicy.Name = "no"
	if s.Main != nil {
		c.GroupAdd = s.Main.Groups
	}
	for _, h := range s.Hosts {
		c.ExtraHosts = append(c.ExtraHosts, h.Name+":"+h.Address)
	}
	for _, m := range s.Mounts {
		if m.Type == "tmpfs" {
			continue
		}
		bind := m.Source + ":" + m.Target
		if m.ReadOnly {
			bind += ":ro"
		}
		c.Binds = append(c.Binds, bind)
	}
	return c
}

// dockerImage has what scripts for docker ask of images, for templates alone.
type dockerImage struct {
	Id                    string
	RepoTags, RepoDigests []string
	Os, Architecture      string
	Created               time.Time
}

// imageConfig has the settings of an image by docker's names too: those of what runs stand right in it.
type imageConfig struct {
	v1.Image
	v1.ImageConfig `json:"-"`
}

func newDockerImage(img *image.Image) dockerImage {
	d := dockerImage{Id: img.ID().String(), Os: img.Config.OS, Architecture: img.Config.Architecture}
	if img.Name != "" {
		repository, _ := splitTag(img.Name)
		d.RepoTags, d.RepoDigests = []string{img.Name}, []string{repository + "@" + img.Descriptor.Digest.String()}
	}
	if t := img.Config.Created; t != nil {
		d.Created = *t
	}
	return d
}

// eventView has an event by docker's names, too, for templates alone.
type eventView struct {
	*container.Event
	dockerEvent `json:"-"`
}

type dockerEvent struct {
	Type, Action, Status, From, Scope string
	TimeNano                          int64
	Actor                             dockerActor
}

type dockerActor struct {
	ID         string
	Attributes map[string]string
}

// dockerActions are docker's names of what happens, where there are some.
var dockerActions = map[container.EventKind]string{
	container.EventCreated: "create", container.EventStarted: "start", container.EventPaused: "pause", container.EventResumed: "unpause",
	container.EventModified: "update", container.EventProcessCreated: "exec_start", container.EventProcessExited: "exec_die",
	container.EventExited: "die", container.EventDeleted: "destroy",
}

func newEventView(e *container.Event) eventView {
	action := cmp.Or(dockerActions[e.Kind], string(e.Kind))
	d := dockerEvent{Type: "container", Action: action, Status: action, From: e.Image, Scope: "local", TimeNano: e.Time.UnixNano()}
	d.Actor = dockerActor{e.ID, map[string]string{"name": e.Name, "image": e.Image}}
	if e.Kind == container.EventExited || e.Kind == container.EventProcessExited {
		d.Actor.Attributes["exitCode"] = strconv.Itoa(e.Exit.Code)
	}
	return eventView{e, d}
}

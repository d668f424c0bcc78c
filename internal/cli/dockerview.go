package cli

import (
	"time"

	"github.com/hostcompute/hcs/container"
)

// dockerView has what scripts for docker ask "inspect --format" for most, by docker's names. JSON does not show it again.
type dockerView struct {
	Id     string
	Image  string // the image's id
	Path   string
	Args   []string
	State  dockerState
	Config dockerConfig
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
		Config: dockerConfig{Hostname: r.Spec.Hostname, Image: r.Spec.Image, Labels: r.Spec.Labels},
	}
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

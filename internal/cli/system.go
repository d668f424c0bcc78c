package cli

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/container"
)

func newSystem(a *app) *cobra.Command {
	c := &cobra.Command{Use: "system", Short: "Look at and clean up the whole", Args: noCommand, RunE: showHelp}
	c.AddCommand(newSystemDf(a), newSystemInfo(a), newSystemMetrics(a), newSystemPrune(a), newSendTraces(a))
	return c
}

func newSystemInfo(a *app) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "info",
		Short: "Show where everything is and what it runs with",
		Args:  takes(0, 0, ""),
		RunE:  func(c *cobra.Command, _ []string) error { return a.info(c.Context(), format) },
	}
	c.Flags().StringVarP(&format, "format", "f", "", "json or a Go `template`; else lines")
	return c
}

// systemInfo is what "system info" shows. What is not found is empty, and
// Problems say why.
type systemInfo struct {
	Version  string             `json:"version"`
	System   string             `json:"system"`
	Root     string             `json:"root"`
	Run      string             `json:"run"`
	Runtime  *container.Runtime `json:"runtime,omitempty"`
	States   map[string]int     `json:"containers"` // how many there are in each state
	Images   int                `json:"images"`
	Layers   int                `json:"layers"`
	Problems []string           `json:"problems,omitempty"`
}

func (a *app) info(ctx context.Context, format string) error {
	h, err := a.host()
	if err != nil {
		return err
	}
	i := gatherInfo(ctx, h)
	switch format {
	case "":
		i.print(a)
		return nil
	case "json":
		format = "{{json .}}"
	}
	return templated(a.out, format, []systemInfo{i})
}

func gatherInfo(ctx context.Context, h *hcs.Host) systemInfo {
	c := h.Config()
	i := systemInfo{
		Version: version, System: runtime.GOOS + "/" + runtime.GOARCH, Root: c.Root, Run: c.Run, States: make(map[string]int),
	}
	note := func(err error) {
		if err != nil {
			i.Problems = append(i.Problems, sentence(err))
		}
	}
	var err error
	i.Runtime, err = h.Containers().Runtime()
	note(err)
	systems, err := h.Containers().Systems(ctx)
	note(err)
	for _, s := range systems {
		st, err := s.Status(ctx)
		note(err)
		if err == nil {
			i.States[string(st.State)]++
		}
	}
	images, err := h.Images().Images(ctx)
	note(err)
	layers, err := h.Layers().Layers()
	note(err)
	i.Images, i.Layers = len(images), len(layers)
	return i
}

func (i *systemInfo) print(a *app) {
	line := func(name, value string) { fmt.Fprintf(a.out, "%-11s %s\n", name+":", value) }
	line("version", i.Version+", "+i.System)
	line("root", i.Root)
	line("run", i.Run)
	if r := i.Runtime; r != nil {
		line("runtime", r.String())
	}
	var states []string
	for _, s := range []container.State{
		container.Created, container.Starting, container.Running, container.Paused, container.Stopping, container.Stopped, container.Lost,
	} {
		if n := i.States[string(s)]; n > 0 {
			states = append(states, fmt.Sprintf("%d %s", n, s))
		}
	}
	if states == nil {
		states = []string{"none"}
	}
	line("containers", strings.Join(states, ", "))
	line("images", fmt.Sprint(i.Images))
	line("layers", fmt.Sprint(i.Layers))
	for _, p := range i.Problems {
		line("problem", p)
	}
}

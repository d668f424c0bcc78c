package cli

import (
	"bufio"
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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

type pruneOptions struct{ force bool }

func newSystemPrune(a *app) *cobra.Command {
	var o pruneOptions
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove what nobody needs, and what programs that died have left behind",
		Long: `Remove containers that do not run, images without a name, layers that no image
and no container has, and mounts, processes and files of programs that died.
On a terminal it asks first.`,
		Args: takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *pruneOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.force, "force", "f", false, "do not ask")
}

func (o *pruneOptions) run(ctx context.Context, a *app) error {
	if !o.force && isTerminal(a.in) && !a.confirm("Remove all containers that do not run, and images without a name?") {
		return nil
	}
	h, err := a.host()
	if err != nil {
		return err
	}
	p, err := h.Prune(ctx)
	for _, name := range p.Containers.Containers {
		fmt.Fprintln(a.out, "container", name)
	}
	for _, id := range p.Images.Images {
		fmt.Fprintln(a.out, "image", id)
	}
	for _, id := range p.Layers.Layers {
		fmt.Fprintln(a.out, "layer", id)
	}
	left := len(p.Containers.Leftovers) + len(p.Layers.Leftovers) + len(p.Layers.Scratches) + p.Images.Temps
	fmt.Fprintf(a.out, "removed %s, %s, %s, %s of dead programs\n", plural(len(p.Containers.Containers), "container"),
		plural(len(p.Images.Images), "image"), plural(len(p.Layers.Layers), "layer"), plural(left, "leftover"))
	return err
}

func (a *app) confirm(question string) bool {
	fmt.Fprint(a.out, question+" [y/N] ")
	answer, err := bufio.NewReader(a.in).ReadString('\n')
	return err == nil && strings.HasPrefix(strings.ToLower(answer), "y")
}

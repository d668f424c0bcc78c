package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
)

// pruneOptions are the flags of a command that removes what nobody needs.
type pruneOptions struct {
	force    bool
	question string
	prune    func(context.Context, *hcs.Host) (hcs.Pruned, error)
}

func newSystemPrune(a *app) *cobra.Command {
	o := pruneOptions{
		question: "Remove all containers that do not run, and images without a name?",
		prune:    func(ctx context.Context, h *hcs.Host) (hcs.Pruned, error) { return h.Prune(ctx) },
	}
	return o.command(a, "Remove what nobody needs, and what programs that died have left behind",
		`Remove containers that do not run, images without a name, layers that no image
and no container has, and mounts, processes and files of programs that died.
On a terminal it asks first.`)
}

func newContainerPrune(a *app) *cobra.Command {
	o := pruneOptions{
		question: "Remove all containers that do not run?",
		prune: func(ctx context.Context, h *hcs.Host) (p hcs.Pruned, err error) {
			p.Containers, err = h.Containers().Prune(ctx)
			return p, err
		},
	}
	return o.command(a, "Remove containers that do not run",
		`Remove containers that do not run, and what programs that died have left behind of others. On a terminal it asks first.`)
}

func newImagePrune(a *app) *cobra.Command {
	o := pruneOptions{
		question: "Remove all images without a name?",
		prune:    func(ctx context.Context, h *hcs.Host) (hcs.Pruned, error) { return h.PruneImages(ctx) },
	}
	return o.command(a, "Remove images without a name, and layers that nobody has",
		`Remove images without a name that no container is made from, and layers that no image and no container has. On a
terminal it asks first.`)
}

func (o pruneOptions) command(a *app, short, long string) *cobra.Command {
	c := &cobra.Command{
		Use: "prune", Short: short, Long: long, Args: takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *pruneOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.force, "force", "f", false, "do not ask")
}

func (o *pruneOptions) run(ctx context.Context, a *app) error {
	if !o.force && isTerminal(a.in) && !a.confirm(o.question) {
		return nil
	}
	h, err := a.host()
	if err != nil {
		return err
	}
	p, err := o.prune(ctx, h)
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

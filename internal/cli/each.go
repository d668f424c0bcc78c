package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/container"
)

// each does something to every container, to all at once, and prints what
// each was called, in that order. One that fails does not keep the others
// from it.
func (a *app) each(ctx context.Context, refs []string, do func(context.Context, *container.System) error) error {
	return a.eachName(ctx, refs, func(ctx context.Context, s *container.Service, ref string) error {
		c, err := s.Open(ctx, ref)
		if err != nil {
			return err
		}
		defer c.Close()
		return do(ctx, c)
	})
}

// eachName is each for those who open the containers themselves.
func (a *app) eachName(ctx context.Context, refs []string, do func(context.Context, *container.Service, string) error) error {
	h, err := a.host()
	if err != nil {
		return err
	}
	errs := make([]error, len(refs))
	var all sync.WaitGroup
	for i, ref := range refs {
		all.Go(func() { errs[i] = do(ctx, h.Containers(), ref) })
	}
	all.Wait()
	for i, ref := range refs {
		switch {
		case errs[i] == nil:
			fmt.Fprintln(a.out, ref)
		case errors.Is(errs[i], errUnsaid):
			errs[i] = nil
		}
	}
	return joined(errs)
}

// errUnsaid is for what has nothing done to it, and is no failure.
var errUnsaid = errors.New("nothing to do")

func isRunning(st container.Status) bool {
	return st.State.IsUp()
}

func isIdle(st container.Status) bool { return !isRunning(st) }

func isAny(container.Status) bool { return true }

// isGone reports whether an error says that somebody else was faster.
func isGone(err error) bool { return errdefs.IsNotFound(err) }

type completion = func(c *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective)

// completeContainers offers the names of containers.
func (a *app) completeContainers(want func(container.Status) bool) completion {
	return func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		h, err := a.host()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		systems, _ := h.Containers().Systems(c.Context())
		var names []string
		for _, s := range systems {
			if st, err := s.Status(c.Context()); err == nil && want(st) {
				names = append(names, s.Name())
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeImages offers the names of images.
func (a *app) completeImages(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	h, err := a.host()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	images, _ := h.Images().Images(c.Context())
	var names []string
	for _, img := range images {
		if img.Name != "" {
			names = append(names, img.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeRun offers images, and then leaves the words to the shell.
func (a *app) completeRun(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeImages(c, args, word)
}

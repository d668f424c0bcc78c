package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs"
)

func newExport(a *app) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "export [flags] CONTAINER",
		Short: "Write a container's files as a tar stream",
		Long: `Write all files of a container as a tar stream, those of its mounts among them. Of /dev, /proc and /sys it has the
directories alone.`,
		Args:              takes(1, 1, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return a.export(c.Context(), args[0], output) },
		ValidArgsFunction: a.completeContainers(isAny),
	}
	c.Flags().StringVarP(&output, "output", "o", "", "write to `file`")
	return c
}

func (a *app) export(ctx context.Context, ref, output string) (err error) {
	if output == "" && isTerminal(a.out) {
		return usage("export: the stream is not for a terminal: use -o, or a pipe")
	}
	if err := a.becomeRoot(); err != nil {
		return err
	}
	ctx = a.signals.catch(ctx)
	h, err := a.host()
	if err != nil {
		return err
	}
	if output == "" {
		return exportTo(ctx, h, ref, a.out)
	}
	f, err := os.Create(output)
	if err != nil {
		return fmt.Errorf("export container %s: %w", ref, err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(output)) // half of it is of no use
		}
	}()
	return exportTo(ctx, h, ref, f)
}

func exportTo(ctx context.Context, h *hcs.Host, ref string, to io.Writer) (err error) {
	c, err := h.Containers().Open(ctx, ref)
	if err != nil {
		return err
	}
	defer c.Close()
	t, err := c.OpenTree(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	w := bufio.NewWriterSize(to, 256<<10)
	if err := writeTar(ctx, w, t, ".", "."); err != nil {
		return fmt.Errorf("export container %s: %w", c.Name(), err)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("export container %s: %w", c.Name(), err)
	}
	return nil
}

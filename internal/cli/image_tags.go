package cli

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/image"
)

// Commands on a layout's tags, as umoci has them.

func newLayoutTag(*app) *cobra.Command {
	var at place
	c := &cobra.Command{
		Use:   "tag --image DIR[:TAG] NEW-TAG",
		Short: "creates a new tag in an OCI image",
		Args:  takes(1, 1, "the new tag"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := at.parse(c); err != nil {
				return err
			}
			l, err := image.OpenLayout(at.dir)
			if err != nil {
				return err
			}
			return l.Tag(c.Context(), at.tag, args[0])
		},
	}
	at.addFlags(c.Flags())
	return c
}

func newLayoutRemove(*app) *cobra.Command {
	var at place
	c := &cobra.Command{
		Use:     "remove --image DIR[:TAG]",
		Aliases: []string{"rm"},
		Short:   "removes a tag from an OCI image",
		Args:    takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := at.parse(c); err != nil {
				return err
			}
			l, err := image.OpenLayout(at.dir)
			if err != nil {
				return err
			}
			// As with umoci it is no failure if the tag is not there.
			if err := l.Remove(c.Context(), at.tag); !errdefs.IsNotFound(err) {
				return err
			}
			return nil
		},
	}
	at.addFlags(c.Flags())
	return c
}

func newLayoutList(a *app) *cobra.Command {
	var dir layoutDir
	c := &cobra.Command{
		Use:     "list --layout DIR",
		Aliases: []string{"ls"},
		Short:   "lists the set of tags in an OCI layout",
		Args:    takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := dir.open(c)
			if err != nil {
				return err
			}
			tags, err := l.Tags(c.Context())
			for _, tag := range tags {
				fmt.Fprintln(a.out, tag)
			}
			return err
		},
	}
	dir.addFlags(c.Flags())
	return c
}

func newLayoutInit(*app) *cobra.Command {
	var dir layoutDir
	c := &cobra.Command{
		Use:   "init --layout DIR",
		Short: "create a new OCI layout",
		Args:  takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := dir.check(c); err != nil {
				return err
			}
			_, err := image.CreateLayout(c.Context(), string(dir))
			return err
		},
	}
	dir.addFlags(c.Flags())
	return c
}

func newLayoutCollect(*app) *cobra.Command {
	var dir layoutDir
	c := &cobra.Command{
		Use:   "gc --layout DIR",
		Short: "garbage-collects an OCI image's blobs",
		Args:  takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := dir.open(c)
			if err != nil {
				return err
			}
			_, err = l.Collect(c.Context())
			return err
		},
	}
	dir.addFlags(c.Flags())
	return c
}

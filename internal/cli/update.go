package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/container"
)

type updateOptions struct {
	resourceOptions
	mounts, volumes, removeMounts []string
	devices, removeDevices        []string
	flags                         *pflag.FlagSet
}

func newUpdate(a *app) *cobra.Command {
	var o updateOptions
	c := &cobra.Command{
		Use:   "update [flags] CONTAINER...",
		Short: "Change limits, mounts and devices of containers, also while they run",
		Long: `Change limits, mounts and devices of containers, whether they run or not. What no flag names stays; a limit of 0 is none.
It holds for later starts too. Of each container all is changed, or nothing.

What is mounted is there at once. What is unmounted is gone at once; processes that have files open there keep them until they
close them.`,
		Example: `  hcs update --memory 256m --cpus 1.5 web
  hcs update -v ./site:/www:ro --mount-rm /old web`,
		Args:              takes(1, -1, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
		ValidArgsFunction: a.completeContainers(isAny),
	}
	o.addFlags(c.Flags())
	return c
}

func (o *updateOptions) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.SetNormalizeFunc(otherNames)
	o.flags = f
	o.resourceOptions.addFlags(f)
	grant(f, "restart", "", granted{[]string{"no"}, noRestarts})
	f.StringArrayVarP(&o.volumes, "volume", "v", nil, "show one more file or directory, `SOURCE:TARGET[:ro]`")
	f.StringArrayVar(&o.mounts, "mount-add", nil, "mount one more, `type=bind|tmpfs,source=PATH,target=PATH,readonly,iops=N,bandwidth=N,tmpfs-size=N`")
	f.StringArrayVar(&o.removeMounts, "mount-rm", nil, "unmount what is at `TARGET`")
	f.StringArrayVar(&o.devices, "device-add", nil, "let processes use one more device, `SOURCE[:TARGET][:rwm]`")
	f.StringArrayVar(&o.removeDevices, "device-rm", nil, "take the device at `TARGET` away")
}

func (o *updateOptions) run(ctx context.Context, a *app, args []string) error {
	ch, err := o.change()
	if err != nil {
		return err
	}
	return a.each(ctx, args, func(ctx context.Context, c *container.System) error { return c.Modify(ctx, ch) })
}

// change turns the flags that were given into what the library wants.
func (o *updateOptions) change() (container.Change, error) {
	ch := container.Change{RemoveMounts: o.removeMounts, RemoveDevices: o.removeDevices}
	var err error
	if ch.AddMounts, err = mounts(o.mounts, o.volumes, nil); err != nil {
		return ch, err
	}
	for _, text := range o.devices {
		d, err := parseDevice(text)
		if err != nil {
			return ch, fmt.Errorf("device %q: %w", text, err)
		}
		ch.AddDevices = append(ch.AddDevices, d)
	}
	var given bool
	ch.Resources, given = o.resourceOptions.change(o.flags)
	lists := [][]string{o.mounts, o.volumes, o.removeMounts, o.devices, o.removeDevices}
	given = given || o.flags.Changed("restart")
	if !given && !slices.ContainsFunc(lists, func(l []string) bool { return len(l) > 0 }) {
		return ch, usage("update: nothing to change: give a flag")
	}
	return ch, nil
}

package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

func newLayoutRaw(a *app) *cobra.Command {
	c := &cobra.Command{Use: "raw", Short: "advanced internal image tooling", Args: noCommand, RunE: showHelp}
	c.AddCommand(newRawUnpack(a), newRawAddLayer(a), newRawConfig(a), newRawValidate(a))
	return c
}

type rawUnpackOptions struct {
	at           place
	mappings     mappingFlags
	keepDirlinks bool
	limits       limitFlags
	reading      readingFlags
}

func newRawUnpack(a *app) *cobra.Command {
	var o rawUnpackOptions
	c := &cobra.Command{
		Use:   "unpack --image DIR[:TAG] ROOTFS",
		Short: "unpacks a reference into a rootfs",
		Long: `Unpack an image into a directory, and nothing beside it. Of an image for Windows
that is what drive C: holds, as files of Linux: without attributes, security
descriptors and alternate streams, which the bundle of "hcs image unpack" keeps.`,
		Args: takes(1, 1, "the directory"),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, c, args[0]) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.BoolVar(&o.keepDirlinks, "keep-dirlinks", false, "don't clobber underlying symlinks to directories")
	o.mappings.addFlags(f)
	o.at.addPlatform(f)
	o.limits.addFlag(f)
	o.reading.addFlags(f)
	return c
}

func (o *rawUnpackOptions) run(ctx context.Context, a *app, c *cobra.Command, dir string) error {
	m, err := o.mappings.parse()
	if err != nil {
		return err
	}
	o.at.limits = o.limits.Image
	l, img, err := o.at.open(ctx, c)
	if err != nil {
		return err
	}
	r := o.reading.reading(a)
	return bundle.Rootfs(ctx, l, img, dir, bundle.UnpackOptions{
		Mappings: m, KeepDirlinks: o.keepDirlinks, Limits: o.limits.Layer, Strict: r.Strict, Warn: r.Warn,
	})
}

type rawAddLayerOptions struct {
	at       place
	tag      newTag
	history  historyFlags
	compress compressFlag
}

func newRawAddLayer(*app) *cobra.Command {
	var o rawAddLayerOptions
	c := &cobra.Command{
		Use:   "add-layer --image DIR[:TAG] LAYER.tar",
		Short: "add a layer archive verbatim to an image",
		Args:  takes(1, 1, "the layer"),
		RunE:  func(c *cobra.Command, args []string) error { return o.run(c.Context(), c, args[0]) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *rawAddLayerOptions) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	o.tag.addFlags(f)
	o.compress.addFlags(f)
	o.history.addFlags(f)
	o.at.addPlatform(f)
}

func (o *rawAddLayerOptions) run(ctx context.Context, c *cobra.Command, name string) error {
	l, img, err := o.at.open(ctx, c)
	if err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("open layer: %w", err)
	}
	defer f.Close()
	tar, _, err := layer.Decompress(f, layer.Limits{})
	if err != nil {
		return fmt.Errorf("read layer %s: %w", name, err)
	}
	defer tar.Close()
	e, err := l.Edit(ctx, img)
	if err != nil {
		return err
	}
	defer e.Close()
	h, err := o.history.entry(c, e.Config.Author)
	if err != nil {
		return err
	}
	if _, err := e.AddTar(ctx, o.compress.of(e), tar); err != nil {
		return err
	}
	addHistory(e, h)
	_, err = e.Commit(ctx, o.tag.or(o.at.tag))
	return err
}

type rawConfigOptions struct {
	at       place
	mappings mappingFlags
	rootfs   string
}

func newRawConfig(a *app) *cobra.Command {
	var o rawConfigOptions
	c := &cobra.Command{
		Use:     "runtime-config --image DIR[:TAG] [--rootfs DIR] CONFIG.json",
		Aliases: []string{"config"},
		Short:   "generates an OCI runtime configuration for an image",
		Args:    takes(1, 1, "the file to write"),
		RunE:    func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, c, args[0]) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.rootfs, "rootfs", "", "`path` to secondary source of truth (root filesystem)")
	o.mappings.addFlags(f)
	o.at.addPlatform(f)
	return c
}

func (o *rawConfigOptions) run(ctx context.Context, a *app, c *cobra.Command, name string) error {
	m, err := o.mappings.parse()
	if err != nil {
		return err
	}
	_, img, err := o.at.open(ctx, c)
	if err != nil {
		return err
	}
	spec, err := bundle.RuntimeSpec(img.Config, bundle.SpecOptions{
		Rootfs: o.rootfs, Mappings: m, Warn: func(err error) { a.warn(err.Error() + " (name it with --rootfs)") },
	})
	if err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write runtime configuration: %w", err)
	}
	if err := bundle.WriteSpec(f, spec); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

type rawValidateOptions struct {
	manifest, path string
	rootless       bool
}

func newRawValidate(a *app) *cobra.Command {
	var o rawValidateOptions
	c := &cobra.Command{
		Use:    "mtree-validate --manifest FILE --path DIR",
		Short:  "holds a directory against its mtree manifest",
		Hidden: true,
		Args:   takes(0, 0, ""),
		RunE:   func(c *cobra.Command, _ []string) error { return o.run(c.Context(), a, c) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *rawValidateOptions) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVarP(&o.manifest, "manifest", "f", "", "the manifest's `file`")
	f.StringVarP(&o.path, "path", "p", "", "`directory` that the manifest is of")
	f.BoolVar(&o.rootless, "rootless", false, "enable rootless command support")
	f.Bool("umoci-keywords", true, "compare what umoci's manifests have, which is what is always done")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "file" {
			name = "manifest"
		}
		return pflag.NormalizedName(name)
	})
}

func (o *rawValidateOptions) run(ctx context.Context, a *app, c *cobra.Command) error {
	if o.manifest == "" || o.path == "" {
		return usageError(c, "missing mandatory arguments: --manifest and --path")
	}
	f, err := os.Open(o.manifest)
	if err != nil {
		return fmt.Errorf("open manifest: %w", err)
	}
	defer f.Close()
	changes, err := rootfs.Changes(ctx, o.path, f, rootfs.ChangeOptions{Rootless: o.rootless})
	if err != nil {
		return err
	}
	for _, change := range changes {
		fmt.Fprintf(a.out, "%s: %q\n", change.Kind, change.Name)
	}
	if len(changes) > 0 {
		return fmt.Errorf("validate %s: %d objects are not as the manifest says", o.path, len(changes))
	}
	return nil
}

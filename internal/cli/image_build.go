package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/bundle"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/temporary"
)

type imageBuildOptions struct {
	base, platform, osVersion string

	osFeatures []string
	compress   compressFlag
	history    historyFlags
	mappings   mappingFlags
	reading    readingFlags
	limits     limitFlags
}

func newImageBuild(a *app) *cobra.Command {
	var o imageBuildOptions
	c := &cobra.Command{
		Use:   "build-from-dir [flags] SOURCE IMAGE",
		Short: "Make an image of a tree of plain files",
		Long: `Make an image of a directory, or of a tar file of plain files ("-" reads one from
standard input). With --base the files become a layer on top of that image's.

In an image for Windows the tree is what drive C: gets: directories come before
what is in them, files have attributes and inherit security descriptors from the
directory that they come into, hard links stay such. Links, attributes and names
that Windows cannot have are errors.

IMAGE is a name of the local store, or a place as in oci:DIR:TAG.`,
		Example: `  hcs image build-from-dir --platform windows/amd64 --os-version 10.0.20348.2227 app oci:layout:app
  hcs image build-from-dir --base mcr.example/windows/nanoserver:ltsc2022 app.tar web:1`,
		Args: takes(2, 2, "a tree and an image"),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, c, args[0], args[1]) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *imageBuildOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.base, "base", "", "`image` to put the layer on: a name of the local store, or a place as in oci:DIR:TAG")
	f.StringVar(&o.platform, "platform", "", "what the image is for, or which base of several, `OS[(VERSION)]/ARCH[/VARIANT]` (default: this machine's)")
	f.StringVar(&o.osVersion, "os-version", "", "`version` of Windows that the image is for, as in 10.0.20348.2227 (default: the base's)")
	f.StringArrayVar(&o.osFeatures, "os-feature", nil, "`feature` of the system that the image needs, as in win32k")
	o.compress.addFlags(f)
	o.history.addFlags(f)
	o.mappings.addFlags(f)
	o.limits.addFlag(f)
	o.reading.addFlags(f)
}

func (o *imageBuildOptions) run(ctx context.Context, a *app, c *cobra.Command, source, target string) (err error) {
	ctx = a.signals.catch(ctx)
	to, err := image.ParseRef(target)
	if err != nil {
		return err
	}
	tree, closeTree, err := o.tree(a, source)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeTree()) }()
	work, err := temporary.New(ctx, temporary.Config{Prefix: "hcs-build-"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, work.Remove()) }()
	l, err := image.CreateLayout(ctx, work.Path("layout"))
	if err != nil {
		return err
	}
	img, err := o.build(ctx, a, c, l, tree)
	if err != nil {
		return fmt.Errorf("build image from %s: %w", source, err)
	}
	if to.Transport != image.TransportStore {
		return image.Copy(ctx, l, img, to)
	}
	h, err := a.host()
	if err != nil {
		return err
	}
	_, err = h.LoadFrom(ctx, l, img, target, hcs.LoadOptions{})
	return err
}

// tree opens what an image is to be made of.
func (o *imageBuildOptions) tree(a *app, source string) (t bundle.PlainTree, closeTree func() error, err error) {
	closeTree = func() error { return nil }
	t.Limits = o.limits.Layer
	if t.Mappings, err = o.mappings.parse(); err != nil {
		return t, nil, err
	}
	if t.SourceDate, err = sourceDate(); err != nil {
		return t, nil, err
	}
	if source == "-" {
		t.Tar = a.in
		return t, closeTree, nil
	}
	info, err := os.Stat(source)
	if err != nil {
		return t, nil, err
	}
	if info.IsDir() {
		t.Dir = source
		return t, closeTree, nil
	}
	f, err := os.Open(source)
	if err != nil {
		return t, nil, err
	}
	t.Tar = f
	return t, f.Close, nil
}

// build makes the image in a layout.
func (o *imageBuildOptions) build(ctx context.Context, a *app, c *cobra.Command, l *image.Layout, t bundle.PlainTree) (*image.Image, error) {
	const tag = "build"
	platform, err := parsePlatform(o.platform)
	if err != nil {
		return nil, err
	}
	below, err := o.start(ctx, a, l, tag, platform)
	if err != nil {
		return nil, err
	}
	e, err := l.Edit(ctx, below.Image)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	if o.osVersion != "" {
		e.Config.OSVersion = o.osVersion
	}
	addFeatures(e, o.osFeatures)
	if _, err := bundle.AddTree(ctx, below, e, o.compress.of(e), t); err != nil {
		return nil, err
	}
	h, err := o.history.entry(c, "")
	if err != nil {
		return nil, err
	}
	addHistory(e, h)
	created := time.Now().UTC()
	if t.SourceDate != nil {
		created = *t.SourceDate
	}
	e.Config.Created = &created
	return e.Commit(ctx, tag)
}

// start puts the image into the layout that the new one is made from: the base,
// or one without layers.
func (o *imageBuildOptions) start(ctx context.Context, a *app, l *image.Layout, tag string, platform v1.Platform) (side bundle.Side, err error) {
	r := o.reading.reading(a)
	side = bundle.Side{Source: l, Limits: o.limits.Layer, Strict: r.Strict, Warn: r.Warn}
	if o.base == "" {
		side.Image, err = l.New(ctx, tag, v1.Image{Platform: platform})
		return side, err
	}
	src, img, err := a.anyImage(ctx, o.base, platform, o.limits.Image)
	if err != nil {
		return side, err
	}
	err = image.Copy(ctx, src, img, image.Ref{Transport: image.TransportOCI, Path: l.Dir(), Tag: tag})
	if err = errors.Join(err, src.Close()); err != nil {
		return side, err
	}
	side.Image, err = image.ResolveWithin(ctx, l, tag, img.Platform(), o.limits.Image)
	return side, err
}

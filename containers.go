package hcs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// Spec says which container to make: an image or a directory, the container's
// properties, and what is to differ from the image's own configuration.
type Spec struct {
	// Image is a name or id in the store, or a place to load from. Without it
	// System.RootDir is the base.
	Image string
	// System are the properties of the container; Layers, Image, ImageID and Main
	// are filled in.
	System container.Spec
	// Command overrides the image's configuration.
	Command image.Overrides
	// Pipes are the main process's, kept with it for those who start it.
	Pipes container.Pipes
	// Groups are the main process's besides those of its user, kept with it too.
	Groups []string
}

// Create makes a container that does not run yet. Its record's Main is the
// process that image and overrides describe, if they do.
func (h *Host) Create(ctx context.Context, spec Spec) (*container.System, error) {
	var cfg v1.ImageConfig
	if spec.Image != "" {
		img, err := h.Image(ctx, spec.Image, LoadOptions{})
		if err != nil {
			return nil, err
		}
		if isWindows(img) {
			return nil, fmt.Errorf("create container: image %s is for %s, which does not run here: %w", spec.Image, img.Config.OS, errdefs.ErrNotImplemented)
		}
		cfg = img.Config.Config
		spec.System.Layers, spec.System.ImageID = img.DiffIDs(), img.ID()
		spec.System.Image = img.Name
		if img.Name == "" {
			spec.System.Image = spec.Image
		}
	}
	if spec.System.StopSignal == 0 && cfg.StopSignal != "" {
		sig, err := container.ParseSignal(cfg.StopSignal)
		if err != nil {
			return nil, fmt.Errorf("create container: stop signal of image %s: %w", spec.Image, err)
		}
		spec.System.StopSignal = int(sig)
	}
	main, err := command(cfg, spec.Command)
	if err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	if main != nil {
		main.Pipes, main.Groups = spec.Pipes, spec.Groups
	}
	spec.System.Main = main
	return h.containers.Create(ctx, spec.System)
}

// command returns the process of a configuration; nil if it names no program.
// The agent resolves its user, in the container's own files.
func command(cfg v1.ImageConfig, o image.Overrides) (*container.ProcessSpec, error) {
	c, err := image.NewCommand(cfg, o)
	if err != nil || len(c.Args) == 0 {
		return nil, err
	}
	return &container.ProcessSpec{
		Args: c.Args, Env: c.Env, Dir: c.Cwd, User: c.User, Terminal: c.Terminal == image.WithTerminal, Role: container.Main,
	}, nil
}

// CommitOptions say what Commit makes. The zero value gives the image no name.
type CommitOptions struct {
	Name    string // of the new image
	Comment string
	Author  string
	// Edit, if not nil, changes the configuration.
	Edit func(*v1.Image)
}

// Commit makes an image of a container's image and of what the container has
// written. A running container is paused meanwhile, if it can be.
func (h *Host) Commit(ctx context.Context, c *container.System, o CommitOptions) (_ *image.Image, err error) {
	fail := func(err error) error { return fmt.Errorf("commit container %s: %w", c.Name(), err) }
	spec := c.Record().Spec
	if spec.ImageID == "" {
		return nil, fail(fmt.Errorf("it was not made from an image: %w", errdefs.ErrFailedPrecondition))
	}
	base, err := h.imageOf(ctx, spec)
	if err != nil {
		return nil, fail(err)
	}
	scratch, err := c.Scratch()
	if err != nil {
		return nil, fail(err)
	}
	resume, err := pause(ctx, c)
	if err != nil {
		return nil, fail(err)
	}
	defer func() { err = errors.Join(err, resume()) }()
	img, err := h.images.Commit(ctx, base, o.Name, image.Change{
		WriteLayer: func(w io.Writer) error { return h.writeDiff(ctx, scratch, mountTargets(spec), w) },
		History:    v1.History{CreatedBy: createdBy(spec), Comment: o.Comment, Author: o.Author, Created: now()},
		Edit:       o.Edit,
	})
	if err != nil {
		return nil, fail(err)
	}
	return img, h.unpackAll(ctx, img)
}

// imageOf returns the image that a container was made from. Several may have
// that configuration, with the same layers compressed in other ways: then it
// is the one of the name that the container knows, or else the first.
func (h *Host) imageOf(ctx context.Context, spec container.Spec) (*image.Image, error) {
	if img, err := h.images.Image(ctx, spec.Image); err == nil && img.ID() == spec.ImageID {
		return img, nil
	}
	return h.images.Image(ctx, spec.ImageID.String())
}

func now() *time.Time {
	t := time.Now().UTC()
	return &t
}

func createdBy(spec container.Spec) string {
	if spec.Main == nil {
		return ""
	}
	return strings.Join(spec.Main.Args, " ")
}

// pause stops a running container and returns what lets it go on.
func pause(ctx context.Context, c *container.System) (resume func() error, err error) {
	st, err := c.Status(ctx)
	if err != nil || st.State != container.Running {
		return func() error { return nil }, err
	}
	err = c.Pause(ctx)
	if errdefs.IsNotImplemented(err) {
		return func() error { return nil }, nil
	}
	return func() error { return c.Resume(context.WithoutCancel(ctx)) }, err
}

// mountTargets lists the names, as entries have them, at which something of
// the host was mounted: what the scratch layer has there is only the place.
func mountTargets(spec container.Spec) map[string]bool {
	targets := make(map[string]bool)
	for _, m := range spec.Mounts {
		targets[strings.TrimPrefix(path.Clean(m.Target), "/")] = true
	}
	for _, name := range []string{"dev", "proc", "sys"} {
		targets[name] = true
	}
	ofHost := spec.Network == container.NetworkHost
	if ofHost || len(spec.Hosts) > 0 {
		targets["etc/hosts"] = true
	}
	if ofHost || spec.DNS.IsSet() {
		targets["etc/resolv.conf"] = true
	}
	return targets
}

// writeDiff writes what a scratch layer holds as a compressed layer.
func (h *Host) writeDiff(ctx context.Context, scratch *rootfs.Scratch, skip map[string]bool, w io.Writer) error {
	blob, err := layer.CreateBlob(w, layer.Gzip)
	if err != nil {
		return err
	}
	err = h.layers.Diff(ctx, scratch, func(e *layer.Entry, content io.Reader) error {
		if skip[e.Name] && e.Kind != layer.Whiteout && e.Size == 0 {
			return nil
		}
		return blob.Write(e, content)
	})
	_, ferr := blob.Finish()
	return errors.Join(err, ferr)
}

// Pruned says what Prune removed.
type Pruned struct {
	Containers container.Pruned
	Layers     rootfs.PruneReport
	Images     image.Removed
}

// Prune removes what nobody needs: containers that have stopped, images
// without a name, layers of neither, and whatever programs that died have left
// behind.
func (h *Host) Prune(ctx context.Context) (Pruned, error) {
	var p Pruned
	var cerr error
	p.Containers, cerr = h.containers.Prune(ctx)
	err := h.pruneImages(ctx, &p)
	return p, errors.Join(cerr, err)
}

// PruneImages is Prune without the containers.
func (h *Host) PruneImages(ctx context.Context) (Pruned, error) {
	var p Pruned
	err := h.pruneImages(ctx, &p)
	return p, err
}

func (h *Host) pruneImages(ctx context.Context, p *Pruned) error {
	var keep []digest.Digest
	systems, err := h.containers.Systems(ctx)
	if err != nil {
		return err
	}
	for _, s := range systems {
		if id := s.Record().Spec.ImageID; id != "" {
			keep = append(keep, id)
		}
	}
	if p.Images, err = h.images.Prune(ctx, image.PruneOptions{Keep: keep}); err != nil {
		return err
	}
	inUse, err := h.layersInUse(ctx)
	if err != nil {
		return err
	}
	p.Layers, err = h.layers.Prune(ctx, func(id digest.Digest) bool { return inUse[id] })
	return err
}

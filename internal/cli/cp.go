package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

type cpOptions struct{ archive, follow, quiet bool }

func newCp(a *app) *cobra.Command {
	var o cpOptions
	c := &cobra.Command{
		Use:   "cp [flags] CONTAINER:PATH PATH|-  or  cp [flags] PATH|- CONTAINER:PATH",
		Short: "Copy files out of a container, into one, or between two",
		Long: `Copy a file or a directory with all that is in it out of a container, into one, or from one to another, whether they run
or not. A running container's are those that its processes see, mounts included.

A directory is copied into the target, if that is a directory, or else becomes it; of DIR/. only what is in it is copied.
The target's parent must be there. A directory does not replace a file, nor a file a directory.

"-" is a tar stream on standard output or input; the target of a stream is a directory.

What is copied belongs to you, or in a container to its root; bits that would give the new owner's rights away are left out.
With -a owners and all bits are those of the source, as they are in a stream. Device nodes are not copied out but to a stream.`,
		Example: `  hcs cp web:/etc/passwd .
  hcs cp site/. web:/www
  hcs cp web:/var/log - | tar -tv`,
		Args: takes(2, 2, "a source and a target, one of them CONTAINER:PATH"),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0], args[1]) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *cpOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.archive, "archive", "a", false, "keep owners")
	f.BoolVarP(&o.follow, "follow-link", "L", false, "copy what a symbolic link SOURCE leads to")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "do not say what is left out")
}

func (o *cpOptions) run(ctx context.Context, a *app, from, to string) error {
	src, dst := parseEnd(from), parseEnd(to)
	switch {
	case from == "" || to == "":
		return usage("cp: a path is empty")
	case src.ref == "" && dst.ref == "":
		return usage("cp: name a container, as in CONTAINER:PATH")
	case src.isStream() && dst.isStream():
		return usage("cp: give - for one of the two")
	}
	if err := a.becomeRoot(); err != nil {
		return err
	}
	h, err := a.host()
	if err != nil {
		return err
	}
	if err := o.copy(ctx, a, h, src, dst); err != nil {
		return fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	return nil
}

func (o *cpOptions) copy(ctx context.Context, a *app, h *hcs.Host, src, dst *copyEnd) (err error) {
	ends, err := inOrder(ctx, h, src, dst)
	if err != nil {
		return err
	}
	for _, p := range ends {
		defer func() { err = errors.Join(err, p.close()) }()
		if err := p.open(ctx, h, p == src && o.follow); err != nil {
			return err
		}
	}
	own, err := hcs.LayerOptions()
	if err != nil {
		return err
	}
	switch {
	case src.isStream():
		return fromStream(ctx, a, dst, own.Owner)
	case dst.isStream():
		return toStream(ctx, a, src)
	}
	dir, as, err := landing(src, dst)
	if err != nil {
		return err
	}
	if err := apart(ctx, h, src, dst); err != nil {
		return err
	}
	return dst.tree.Write(ctx, dir, func(emit rootfs.Emit) error {
		return src.tree.Read(ctx, src.name, as, o.adapted(a, dst, emit))
	}, own.Owner)
}

// inOrder returns the two in the order in which they are opened: of two containers everybody opens the same one first,
// as one that does not run is locked meanwhile.
func inOrder(ctx context.Context, h *hcs.Host, src, dst *copyEnd) ([]*copyEnd, error) {
	src.source = true
	var ids []string
	for _, p := range []*copyEnd{src, dst} {
		if p.ref == "" {
			return []*copyEnd{src, dst}, nil
		}
		c, err := h.Containers().Open(ctx, p.ref)
		if err != nil {
			return nil, err
		}
		ids = append(ids, c.ID())
		c.Close()
	}
	switch strings.Compare(ids[0], ids[1]) {
	case 0:
		return nil, usage("within a container its own programs copy: use hcs exec")
	case 1:
		return []*copyEnd{dst, src}, nil
	}
	return []*copyEnd{src, dst}, nil
}

// apart refuses a source that what is written to the container is a part of: the copy would be of itself, without end.
func apart(ctx context.Context, h *hcs.Host, src, dst *copyEnd) error {
	if src.ref != "" || src.is.Kind != layer.Dir {
		return nil
	}
	c, err := h.Containers().Open(ctx, dst.ref)
	if err != nil {
		return err
	}
	defer c.Close()
	writes := c.Record().Spec.RootDir
	if !c.Record().Spec.WriteInPlace {
		scratch, err := c.Scratch()
		if err != nil {
			return err
		}
		writes = scratch.Upper()
	}
	if isBelow(writes, src.real) {
		return fault(errdefs.ErrInvalidArgument, "what container %s writes is kept in %s", c.Name(), src.real)
	}
	return nil
}

// isBelow reports whether a path leads into the directory, or to it, whatever links are on its way.
func isBelow(name, dir string) bool {
	name, err := filepath.EvalSymlinks(name)
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(dir, name)
	return err == nil && filepath.IsLocal(rel)
}

// adapted changes entries to what they are to be at their target.
func (o *cpOptions) adapted(a *app, dst *copyEnd, emit rootfs.Emit) rootfs.Emit {
	return func(e *layer.Entry, content io.Reader) error {
		if dst.ref == "" && (e.Kind == layer.CharDevice || e.Kind == layer.BlockDevice) {
			if !o.quiet {
				a.warn(fmt.Sprintf("left out %s: it is a device node", e.Name))
			}
			return nil
		}
		if !o.archive {
			disown(e)
		}
		return emit(e, content)
	}
}

// disown gives what is copied to root, which an ordinary user is in his own namespace. What ran as its owner must not run
// as root now.
func disown(e *layer.Entry) {
	e.UID, e.GID = 0, 0
	delete(e.Xattrs, "security.capability")
	if e.Kind != layer.Dir {
		e.Mode &^= 0o6000
	}
}

// toStream writes what docker does: the names begin with that of the source.
func toStream(ctx context.Context, a *app, src *copyEnd) error {
	if isTerminal(a.out) {
		return usage("the stream is not for a terminal: use a pipe or a file")
	}
	as := src.base()
	if src.contents {
		as = "."
	}
	return writeTar(ctx, a.out, src.tree, src.name, as)
}

// writeTar writes a part of a tree as a tar stream.
func writeTar(ctx context.Context, to io.Writer, t *rootfs.Tree, name, as string) error {
	w := layer.NewWriter(to)
	err := t.Read(ctx, name, as, func(e *layer.Entry, content io.Reader) error {
		e.Data = nil // not all programs know sparse files
		return w.Write(e, content)
	})
	if err != nil {
		return err
	}
	return w.Close()
}

func fromStream(ctx context.Context, a *app, dst *copyEnd, owner rootfs.OwnerPolicy) error {
	if isTerminal(a.in) {
		return usage("the stream does not come from a terminal: use a pipe or a file")
	}
	if dst.is == nil || dst.is.Kind != layer.Dir {
		return fault(errdefs.ErrInvalidArgument, "the target of a stream is a directory, which %s is not", dst.path)
	}
	content, _, err := layer.Decompress(a.in, layer.Limits{})
	if err != nil {
		return err
	}
	defer content.Close()
	return dst.tree.Write(ctx, dst.name, func(emit rootfs.Emit) error { return emitTar(content, emit) }, owner)
}

// emitTar emits the entries of a tar stream. One of nothing at all is no empty archive, which has its end marked: what was
// to make it has failed.
func emitTar(stream io.Reader, emit rootfs.Emit) error {
	content := bufio.NewReader(stream)
	if _, err := content.Peek(1); errors.Is(err, io.EOF) {
		return fault(errdefs.ErrInvalidArgument, "what standard input has is no tar stream: it is empty")
	}
	r := layer.NewReader(content, layer.Limits{})
	n := 0
	for e, err := range r.All() {
		if err != nil && n == 0 {
			return fault(errdefs.ErrInvalidArgument, "what standard input has is no tar stream: %w", err)
		}
		if err != nil {
			return fmt.Errorf("read standard input: %w", err)
		}
		if err := emit(e, r); err != nil {
			return err
		}
		n++
	}
	return nil
}

// copyEnd is one end of a copy: a path in a container or on this machine, or a stream.
type copyEnd struct {
	ref, path string // the container; empty is this machine
	source    bool   // it has to be there

	real     string // the path on this machine, without links
	tree     *rootfs.Tree
	name     string       // in the tree
	is       *layer.Entry // nil if it is not there
	dirOnly  bool         // given as a directory, with a slash at the end
	contents bool         // what is in it, and not the directory itself
}

// parseEnd reads CONTAINER:PATH, or a path of this machine: what begins with a slash or a dot is always one.
func parseEnd(arg string) *copyEnd {
	ref, name, ok := strings.Cut(arg, ":")
	if !ok || ref == "" || filepath.IsAbs(arg) || strings.HasPrefix(arg, ".") {
		return &copyEnd{path: arg}
	}
	return &copyEnd{ref: ref, path: name}
}

func (p *copyEnd) isStream() bool { return p.ref == "" && p.path == "-" }

// open finds what is at the place, at the end of a symbolic link if it is a target, a directory, or to be followed.
func (p *copyEnd) open(ctx context.Context, h *hcs.Host, follow bool) error {
	if p.isStream() {
		return nil
	}
	p.contents = p.source && slices.Contains([]string{".", ""}, lastPart(p.path))
	p.dirOnly = strings.HasSuffix(p.path, "/") || lastPart(p.path) == "."
	follow = follow || p.dirOnly || !p.source
	var err error
	if p.ref == "" {
		err = p.openLocal(follow)
	} else {
		err = p.openContainer(ctx, h, follow)
	}
	switch {
	case err != nil:
		return err
	case p.is == nil && p.source:
		return &fs.PathError{Op: "find", Path: p.path, Err: fs.ErrNotExist}
	case p.is != nil && p.is.Kind != layer.Dir && p.dirOnly:
		return fault(errdefs.ErrInvalidArgument, "%s is not a directory", p.path)
	}
	return nil
}

// lastPart is "." for a path that means what is in a directory, and empty for a root.
func lastPart(name string) string {
	if strings.Trim(name, "/") == "" {
		return ""
	}
	return name[strings.LastIndexByte(name, '/')+1:]
}

func (p *copyEnd) openContainer(ctx context.Context, h *hcs.Host, follow bool) error {
	c, err := h.Containers().Open(ctx, p.ref)
	if err != nil {
		return err
	}
	defer c.Close()
	if p.tree, err = c.OpenTree(ctx); err != nil {
		return err
	}
	p.name = p.path
	if follow {
		if p.name, err = p.tree.Follow(p.path); err != nil {
			return err
		}
	}
	return p.look()
}

// openLocal opens the directory that the path is in, or that it is if a copy goes there: nothing is written outside of it.
func (p *copyEnd) openLocal(follow bool) error {
	full, err := filepath.Abs(p.path)
	if err != nil {
		return err
	}
	if follow {
		if real, err := filepath.EvalSymlinks(full); err == nil {
			full = real
		}
	}
	dir, name := filepath.Split(full)
	if info, err := os.Lstat(full); err == nil && info.IsDir() && (follow || name == "") {
		dir, name = full, "."
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	p.real = filepath.Join(dir, name)
	if p.tree, err = rootfs.OpenTree(dir); err != nil {
		return err
	}
	p.name = name
	return p.look()
}

func (p *copyEnd) look() error {
	is, err := p.tree.Lstat(p.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	p.is, p.name = is, is.Name
	return nil
}

func (p *copyEnd) close() error {
	if p.tree == nil {
		return nil
	}
	t := p.tree
	p.tree = nil
	return t.Close()
}

// landing returns the directory of the target's tree that the source goes to, and what it is called there.
func landing(src, dst *copyEnd) (dir, as string, err error) {
	isDir := src.is.Kind == layer.Dir
	switch {
	case dst.is == nil && dst.dirOnly && !isDir:
		return "", "", &fs.PathError{Op: "find directory", Path: dst.path, Err: fs.ErrNotExist}
	case dst.is == nil:
		dir, as = path.Split(dst.name)
		return dir, as, dst.checkParent(dir)
	case dst.is.Kind == layer.Dir && isDir && src.contents:
		return dst.name, ".", nil
	case dst.is.Kind == layer.Dir:
		return dst.name, src.base(), nil
	case isDir:
		return "", "", fault(errdefs.ErrFailedPrecondition, "a directory cannot take the place of a %v", dst.is.Kind)
	case dst.is.Kind != layer.File:
		return "", "", fault(errdefs.ErrFailedPrecondition, "a copy does not take the place of a %v", dst.is.Kind)
	}
	return path.Dir(dst.name), path.Base(dst.name), nil
}

// checkParent sees that what a missing target is to be in is there.
func (p *copyEnd) checkParent(dir string) error {
	dir, err := p.tree.Follow(dir)
	if err != nil {
		return err
	}
	is, err := p.tree.Lstat(dir)
	if err == nil && is.Kind != layer.Dir {
		err = fault(errdefs.ErrFailedPrecondition, "%s is in a %v", p.path, is.Kind)
	}
	return err
}

// base is what the source is called by itself.
func (p *copyEnd) base() string {
	if p.ref == "" {
		if full, err := filepath.Abs(p.path); err == nil {
			return filepath.Base(full)
		}
	}
	if name := path.Base(path.Clean("/" + p.path)); name != "/" {
		return name
	}
	return "."
}

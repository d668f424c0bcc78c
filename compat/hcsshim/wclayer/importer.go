package wclayer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/transfer"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// importer makes a layer of entries that are put in one by one. The import runs in a goroutine and waits for them there.
type importer struct {
	entries chan putEntry // closed after the last
	ended   chan struct{} // closed when the import has
	failed  error         // what the importer was given up for; before entries is closed
	err     error         // of the import; before ended is closed
}

// putEntry is an entry on its way.
type putEntry struct {
	e       *layer.Entry
	content io.Reader
	taken   chan error // what became of it
}

// startImport begins to import a layer to a path.
func startImport(ctx context.Context, path string, parents []string) (*importer, error) {
	if err := errors.Join(ctx.Err(), checkParents(parents)); err != nil {
		return nil, err
	}
	if names, err := os.ReadDir(path); err == nil && len(names) > 0 {
		return nil, fmt.Errorf("%s is not empty: %w", path, errdefs.ErrAlreadyExists)
	}
	i := &importer{entries: make(chan putEntry), ended: make(chan struct{})}
	go func() {
		defer close(i.ended)
		_, i.err = rootfs.ImportEntries(ctx, path, parents, i.source, options())
	}()
	return i, nil
}

// source gives the import what is put.
func (i *importer) source(emit rootfs.Emit) error {
	for p := range i.entries {
		err := emit(p.e, p.content)
		p.taken <- err
		if err != nil {
			return err
		}
	}
	return i.failed
}

// put adds an entry. It returns when the import is ready for the next.
func (i *importer) put(e *layer.Entry, content io.Reader) error {
	p := putEntry{e, content, make(chan error, 1)}
	select {
	case i.entries <- p:
	case <-i.ended:
		return i.err
	}
	select {
	case err := <-p.taken:
		if err == nil {
			return nil
		}
	case <-i.ended:
	}
	<-i.ended
	return i.err
}

// finish completes the layer if err is nil, and otherwise gives it up. It returns what went wrong first.
func (i *importer) finish(err error) error {
	i.failed = err
	close(i.entries)
	<-i.ended
	if err != nil {
		return err
	}
	return i.err
}

// ImportStream makes the layer at path, where an empty directory may be, of the uncompressed tar stream that an image of
// Windows holds, and returns the bytes of its files. Its parents are given nearest first; without any the layer becomes a base
// layer, as by ProcessBaseLayer, and must have what that needs. A utility VM is completed and processed. A stream that is
// malformed in known ways is mended, as package layer does it.
func ImportStream(ctx context.Context, path string, parents []string, stream io.Reader) (int64, error) {
	stats, err := rootfs.ImportNT(ctx, path, parents, layer.ReadOptions{Encoding: layer.NT}.NewReader(stream), options())
	return stats.Bytes, err
}

// options let ordinary users store layers, too. Mounting them takes a user namespace.
func options() rootfs.NTOptions {
	o := rootfs.NTOptions{Processing: rootfs.Processed}
	if os.Geteuid() > 0 {
		o.UserXattr, o.Owner = true, rootfs.IgnoreOwner
	}
	return o
}

// export returns what gives a layer's entries: those it was imported with, in their order, or, of a scratch layer, what was
// written into it on top of its parents, nearest first, with hard links as the policy has it. Of an imported layer's hard
// links linksOf tells what they are. A scratch layer must be active and not prepared.
func export(ctx context.Context, path string, parents []string, links rootfs.LinkPolicy) (transfer.Source, error) {
	v, err := scratch(ctx, path)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return func(emit transfer.Emit) error { return rootfs.ExportNT(ctx, path, emit) }, nil
	}
	changes, err := v.NTScratch(parents)
	if err != nil {
		return nil, notReady(err)
	}
	changes.Links = links
	return func(emit transfer.Emit) error { return changes.Diff(ctx, emit) }, nil
}

// linksOf finds what a layer's hard links stand for.
func linksOf(path string, parents []string) transfer.LinkSource {
	dirs := append([]string{path}, parents...)
	return func(name string, emit transfer.Emit) error { return rootfs.ReadNT(dirs, name, emit) }
}

// ExportStream writes the layer at path to w as a tar stream: the one that it was imported from, byte for byte, or that of
// what was written into a scratch layer on top of its parents, nearest first. A scratch layer must not be prepared, and is
// active meanwhile.
func ExportStream(ctx context.Context, path string, parents []string, w io.Writer) (err error) {
	v, err := scratch(ctx, path)
	switch {
	case err != nil:
		return err
	case v == nil:
		return rootfs.WriteNT(ctx, path, w)
	}
	before, err := v.State()
	if err != nil {
		return err
	}
	if !before.Active {
		if err := v.Activate(ctx); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, v.Deactivate(context.WithoutCancel(ctx))) }()
	}
	changes, err := v.NTScratch(parents)
	if err != nil {
		return err
	}
	return changes.Write(ctx, w)
}

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/layer"
)

// ExportLayer gives the entries of the layer in dir to emit, as ExportNT does it for a Windows layer and Diff for a Linux
// one. Of a scratch layer it is what was written into it; parents, the nearest first, are those that it notes if none are
// given. A scratch layer may be in use: what changes meanwhile may be in the entries or not.
func ExportLayer(ctx context.Context, dir string, parents []string, emit Emit) error {
	_, err := exportLayer(ctx, dir, parents, emit)
	if err != nil {
		return fmt.Errorf("export layer %s: %w", dir, err)
	}
	return nil
}

// WriteLayer writes the entries that ExportLayer gives as a tar stream, and returns its digest. For a layer that was imported
// it is the stream that it was imported from, byte for byte, unless that was a Linux layer which replaced or removed
// something that it had brought itself, or one that a Store has unpacked.
func WriteLayer(ctx context.Context, dir string, parents []string, w io.Writer) (digest.Digest, error) {
	d := digest.Canonical.Digester()
	out := layer.NewWriter(io.MultiWriter(w, d.Hash()))
	trailer, err := exportLayer(ctx, dir, parents, out.Write)
	if err == nil {
		err = out.CloseWith(trailer)
	}
	if err != nil {
		return "", fmt.Errorf("export layer %s: %w", dir, err)
	}
	return d.Digest(), nil
}

func exportLayer(ctx context.Context, dir string, parents []string, emit Emit) (trailer layer.Trailer, err error) {
	l, err := inspectLayer(dir)
	switch {
	case err != nil:
		return trailer, err
	case l.Scratch:
		return trailer, l.exportScratch(ctx, parents, emit)
	case l.Encoding == layer.NT:
		return exportNT(ctx, l.Path, emit)
	}
	return l.exportPOSIX(ctx, emit)
}

// exportPOSIX reads a Linux layer as it came, where that is kept, and otherwise its tree, which has an entry for its top
// directory always, and tells by its record alone that this is opaque.
func (l *LayerDir) exportPOSIX(ctx context.Context, emit Emit) (layer.Trailer, error) {
	trailer, kept, err := exportKept(ctx, l.Path, l.headers, emit)
	if kept || err != nil {
		return trailer, err
	}
	return trailer, diff(ctx, filepath.Join(l.Path, filesDir), overlayMarks(l.userXattr), func(e *layer.Entry, content io.Reader) error {
		if e.Name != "." || e.Kind != layer.Dir {
			return emit(e, content)
		}
		if l.top {
			if err := emit(e, nil); err != nil {
				return err
			}
		}
		if l.opaque {
			return emit(&layer.Entry{Name: ".", Kind: layer.Opaque, ModTime: time.Unix(0, 0)}, nil)
		}
		return nil
	})
}

// IsTransport reports whether dir is a transport folder, for ReadTransport.
func IsTransport(dir string) bool {
	info, err := os.Lstat(filepath.Join(dir, tombstonesFile))
	return err == nil && info.Mode().IsRegular()
}

func (l *LayerDir) exportScratch(ctx context.Context, parents []string, emit Emit) error {
	if len(parents) == 0 {
		parents = l.Parents
	}
	below, err := openParents(parents)
	if err != nil {
		return err
	}
	if len(below) == 0 {
		return fmt.Errorf("its parents are not known: %w", errdefs.ErrInvalidArgument)
	}
	v, err := OpenVolume(l.Path)
	if err != nil {
		return err
	}
	return v.whileActive(ctx, func() error {
		if encodingOf(below) == layer.NT {
			return NTScratch{Upper: v.Upper(), Parents: pathsOf(below)}.Diff(ctx, emit)
		}
		return diff(ctx, v.Upper(), overlayMarks(below[0].userXattr), emit)
	})
}

// whileActive calls f with the volume active. One that is active already nobody can deactivate meanwhile; one that is not is
// active for f alone: others wait.
func (v *Volume) whileActive(ctx context.Context, f func() error) error {
	var pin *os.File
	err := v.locked(ctx, func() error {
		s, err := v.State()
		if err != nil {
			return err
		}
		if s.Active {
			pin, err = os.Open(v.path(volumeMount))
			return err
		}
		if err := v.activate(); err != nil {
			return err
		}
		err = f()
		if after := v.deactivate(); !errdefs.IsUnavailable(after) { // somebody looks into it without being asked to
			err = errors.Join(err, after)
		}
		return err
	})
	if pin == nil {
		return err
	}
	return errors.Join(f(), pin.Close())
}

package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// What the directory of a Windows layer holds beside Files, Hives and UtilityVM. docs/formats/layer-directory.md tells more.
const (
	ntRecord      = "layer.json"
	ntEntries     = "headers.s2" // the layer's stream without the content of files
	ntReplacedDir = "Replaced"   // content of files whose name the layer gives to something else later
	ntSpill       = "Metadata"   // metadata too big for an extended attribute, by digest
)

// NTOptions says how a Windows layer is stored. The zero value is right for root.
type NTOptions struct {
	// UserXattr keeps metadata and overlayfs's marks in user.*; symbolic links then have none.
	UserXattr UserXattrs
	// Owner says what happens where this process may not give files to root.
	Owner OwnerPolicy
	// Writers is how many goroutines write files; 0 means one per CPU, at most 8.
	Writers int
	// Processing says what is made of the layer beside what it brings.
	Processing Processing

	// DiffID tells the digest of the layer's stream, which is noted with the layer, unless it is nil. It is called when the
	// stream was read to its end, and once.
	DiffID func() (digest.Digest, error)

	whole   bool     // entries that a tar stream cannot tell are stored, too
	plain   bool     // what Linux has no place for is not stored
	parents []string // are noted with the layer
}

func (o NTOptions) diffID() (digest.Digest, error) {
	if o.DiffID == nil {
		return "", nil
	}
	return o.DiffID()
}

// NTStats says what ImportNT did.
type NTStats struct {
	Entries int64 // whiteouts and streams included
	Bytes   int64 // content of files, holes included
	Streams int64 // alternate data streams
}

// ntLayerRecord is the content of layer.json, which is there once the layer is complete.
type ntLayerRecord struct {
	Version   int        `json:"version"`
	Encoding  string     `json:"encoding"`
	UserXattr UserXattrs `json:"userXattr,omitempty"`
	Whole     bool       `json:"whole,omitempty"` // the stream's entries have records of what a tar stream cannot tell
	Entries   int64      `json:"entries"`
	Size      int64      `json:"size"`
	Headers   int64      `json:"headers"` // bytes of the stream without the content of files

	DiffID  digest.Digest `json:"diffID,omitempty"`
	Created time.Time     `json:"created,omitzero"`
}

// ImportNT stores the Windows layer that r reads in the directory dir, on top of the layers in the directories parents, the
// nearest first. dir may be an empty directory. The layer appears when it is complete and safe from a power cut; otherwise all
// is as it was, and what a killed process left is removed by the next ImportNT to dir. If there is something at dir, the error
// is of class errdefs.ErrAlreadyExists.
//
// Files, Hives and UtilityVM are trees for overlayfs to stack. Names are spelled as the parents do, or as the layer did
// first, where only case differs. Windows' metadata is in an extended attribute of each file. Links are symbolic links that
// lead to the same place in the tree if their target is known. Hard links to files of a parent share these.
//
// Where a layer with parents has a delta of a registry hive, the whole hive is made of the parents' and the delta, for
// OpenHive, and where stacked trees show it. A delta that is no hive is an error of class errdefs.ErrInvalidArgument, if the
// parents have what it changes.
//
// r is read to its end, its trailer included.
func ImportNT(ctx context.Context, dir string, parents []string, r *layer.Reader, opts NTOptions) (NTStats, error) {
	r.Lend()
	stats, err := importNT(ctx, dir, parents, r, opts)
	if err != nil {
		return stats, fmt.Errorf("import layer to %s: %w", dir, err)
	}
	return stats, nil
}

func importNT(ctx context.Context, dir string, parents []string, r ntInput, opts NTOptions) (stats NTStats, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return stats, err
	}
	roots, err := openRoots(parents)
	if err != nil {
		return stats, err
	}
	defer func() { err = errors.Join(err, closeRoots(roots)) }()
	w, err := openWorkplace(ctx, workplace{target: dir, overEmpty: true})
	if err != nil {
		return stats, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	_, err = w.fill(TreeOptions{}, func(root *inroot.Root) (TreeStats, error) {
		var err error
		stats, err = fillNT(ctx, filepath.Join(w.dir, treeDir), root, ntParents{roots, parents}, r, opts)
		return TreeStats{}, err
	})
	return stats, errors.Join(err, w.publish(err))
}

func openRoots(dirs []string) ([]*inroot.Root, error) {
	roots := make([]*inroot.Root, 0, len(dirs))
	for _, dir := range dirs {
		root, err := inroot.Open(dir)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open layer: %w", err), closeRoots(roots))
		}
		roots = append(roots, root)
	}
	return roots, nil
}

func closeRoots(roots []*inroot.Root) error {
	var err error
	for _, root := range roots {
		err = errors.Join(err, root.Close())
	}
	return err
}

// ntParents are the layers below one, the nearest first.
type ntParents struct {
	roots []*inroot.Root
	dirs  []string // for errors
}

// fillNT stores a layer in the empty directory dir, which root is, too.
func fillNT(
	ctx context.Context, dir string, root *inroot.Root, parents ntParents, r ntInput, opts NTOptions,
) (NTStats, error) {
	s, err := newNTSource(dir, root, parents, r, opts)
	if err != nil {
		return NTStats{}, err
	}
	done, err := apply(ctx, root, s, ApplyOptions{
		Format: OverlayUpper, Owner: opts.Owner, UserXattr: bool(opts.UserXattr), Writers: opts.Writers, aside: s.aside,
	})
	if err == nil {
		err = s.end()
	}
	if err == nil {
		err = s.mergeHives(ctx)
	}
	if err == nil && opts.Processing == Processed {
		err = s.process(ctx)
	}
	if err := errors.Join(err, s.close()); err != nil {
		return NTStats{}, err
	}
	s.stats.Bytes = done.Bytes
	record := ntLayerRecord{
		UserXattr: opts.UserXattr, Whole: opts.whole, Entries: s.stats.Entries, Size: s.stats.Bytes, Headers: s.packed.n,
		Created: time.Now().UTC(),
	}
	if record.DiffID, err = opts.diffID(); err != nil {
		return NTStats{}, err
	}
	return s.stats, errors.Join(writeChain(dir, opts.parents), writeNTRecord(dir, record))
}

func writeNTRecord(dir string, record ntLayerRecord) error {
	record.Version, record.Encoding = 1, layer.NT.String()
	data, err := json.MarshalIndent(record, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, ntRecord), append(data, '\n'), 0o600); err != nil {
		return err
	}
	if err := inDirectory(dir, sys.SyncFS); err != nil {
		return fmt.Errorf("write to disk: %w", err)
	}
	return nil
}

func readNTRecord(root *inroot.Root) (record ntLayerRecord, err error) {
	data, err := root.ReadFile(ntRecord, 1<<20)
	if err != nil {
		return record, fmt.Errorf("no Windows layer: %w", err)
	}
	if err := json.Unmarshal(data, &record); err != nil {
		return record, fmt.Errorf("%s is damaged: %w: %w", ntRecord, err, errdefs.ErrDataLoss)
	}
	if record.Version != 1 || record.Encoding != layer.NT.String() {
		return record, fmt.Errorf("%s is of version %d, encoding %q: %w", ntRecord, record.Version, record.Encoding, errdefs.ErrFailedPrecondition)
	}
	return record, nil
}

// sameXattrs says which attributes the layers in roots keep their metadata in.
func sameXattrs(roots []*inroot.Root) (user UserXattrs, err error) {
	for i, root := range roots {
		record, err := readNTRecord(root)
		if err != nil {
			return false, fmt.Errorf("open layer %d from the top: %w", i+1, err)
		}
		if i > 0 && record.UserXattr != user {
			return false, fmt.Errorf("layers 1 and %d from the top keep metadata in different attributes: %w", i+1, errdefs.ErrFailedPrecondition)
		}
		user = record.UserXattr
	}
	return user, nil
}

package rootfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// LayerDir is a layer that is named by its directory, as the Host Compute System has it: one that ImportLayer or a Store has
// made, or a scratch layer.
type LayerDir struct {
	Path     string         // of the directory, absolute
	Scratch  bool           // it is a Volume
	Encoding layer.Encoding // of its stream; of a scratch layer that of the nearest parent, Auto if that is not known
	DiffID   digest.Digest  // of what was imported, "" if that was not noted
	Parents  []string       // directories, the nearest first, as far as they are noted
	Entries  int64
	Size     int64 // bytes of files' content; of a scratch layer those of its disk, 0 if there is no limit
	Room     int64 // of such a disk what is for files: the rest is its file system's
	Created  time.Time
	Active   bool // of a scratch layer, as for VolumeState
	Prepared bool // MountLayer's tree is there

	top       bool  // of a Linux layer: it has an entry for its top directory
	opaque    bool  // and hides everything below
	headers   int64 // bytes that are kept of its stream
	userXattr UserXattrs
}

// chainFile lists the directories of a layer's parents, the nearest first, as JSON. Docker's graph driver for Windows keeps
// its chain under the same name in the same form.
const chainFile = "layerchain.json"

// maxRecord is more than what a layer's own files have.
const maxRecord = 1 << 20

// InspectLayer tells of the layer in dir. If there is none, the error is of class errdefs.ErrNotFound; errdefs.ErrDataLoss
// says that its record is damaged.
func InspectLayer(dir string) (LayerDir, error) {
	l, err := inspectLayer(dir)
	if err != nil {
		return l, fmt.Errorf("look at layer %s: %w", dir, err)
	}
	return l, nil
}

func inspectLayer(dir string) (l LayerDir, err error) {
	if l.Path, err = filepath.Abs(dir); err != nil {
		return l, err
	}
	if err := checkDir(l.Path); err != nil {
		return l, err
	}
	root, err := inroot.Open(l.Path)
	if err != nil {
		return l, missing(err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if l.Parents, err = readChain(root); err != nil {
		return l, err
	}
	v, err := OpenVolume(l.Path)
	if errdefs.IsNotFound(err) {
		return l, l.readOnly(root)
	}
	if err != nil {
		return l, err
	}
	return l, l.readVolume(v)
}

// readOnly tells of a layer that is no scratch layer.
func (l *LayerDir) readOnly(root *inroot.Root) (err error) {
	if err := l.readRecord(root); err != nil {
		return err
	}
	if l.Prepared, err = sys.IsMountPoint(filepath.Join(l.Path, volumeRoot)); errdefs.IsNotImplemented(err) {
		err = nil
	}
	return err
}

// checkDir refuses what is there and no directory.
func checkDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return fmt.Errorf("it is no directory: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// missing gives what is not there its class.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &absence{err}
	}
	return err
}

// absence says that a layer is not there, whichever of its files was looked for.
type absence struct{ err error }

func (*absence) Error() string     { return "there is none" }
func (a *absence) Unwrap() []error { return []error{errdefs.ErrNotFound, a.err} }

// dirRecord is what the records of all encodings have in common.
type dirRecord struct {
	Encoding string        `json:"encoding"`
	DiffID   digest.Digest `json:"diffID"`
	Entries  int64         `json:"entries"`
	Size     int64         `json:"size"`
	Created  time.Time     `json:"created"`
	Root     bool          `json:"root"`
	Opaque   bool          `json:"opaque"`

	Headers   int64      `json:"headers"`
	UserXattr UserXattrs `json:"userXattr"`
}

func (l *LayerDir) readRecord(root *inroot.Root) error {
	data, err := root.ReadFile(layerFile, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		if st, err := root.Lstat(filesDir); err == nil && st.IsDir() {
			return fmt.Errorf("nobody has imported its files, or made a base layer of them: %w", errdefs.ErrNotFound)
		}
	}
	if err != nil {
		return missing(err)
	}
	var r dirRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("%s is damaged: %w: %w", layerFile, err, errdefs.ErrDataLoss)
	}
	switch r.Encoding {
	case layer.NT.String():
		l.Encoding = layer.NT
	case "":
		l.Encoding = layer.POSIX
	default:
		return fmt.Errorf("%s has the encoding %q: %w", layerFile, r.Encoding, errdefs.ErrDataLoss)
	}
	l.DiffID, l.Entries, l.Size, l.Created = r.DiffID, r.Entries, r.Size, r.Created
	l.top, l.opaque, l.headers, l.userXattr = r.Root, r.Opaque, r.Headers, r.UserXattr
	return nil
}

func (l *LayerDir) readVolume(v *Volume) error {
	s, err := v.State()
	if err != nil {
		return err
	}
	l.Scratch, l.Active, l.Prepared, l.Size = true, s.Active, s.Prepared, int64(s.Size) //nolint:gosec // Grow has judged it
	if parents, err := openParents(l.Parents[:min(1, len(l.Parents))]); err == nil {
		l.Encoding = encodingOf(parents)
	} else {
		l.Encoding = layer.Auto
	}
	if info, err := os.Stat(v.path(volumeData)); err == nil {
		l.Created = info.ModTime().UTC()
	}
	if s.Size == 0 {
		return nil
	}
	room, err := v.room(s.Size)
	l.Room = int64(room) //nolint:gosec // it is less than the size
	return err
}

// encodingOf returns the encoding that the nearest parent is of, and Auto if there is none.
func encodingOf(parents []LayerDir) layer.Encoding {
	if len(parents) == 0 {
		return layer.Auto
	}
	return parents[0].Encoding
}

// ListLayers returns the layers in the directories that dir holds, by name. One that is damaged does not hide the others: it
// is in the error.
func ListLayers(dir string) ([]LayerDir, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	var (
		layers  []LayerDir
		damaged []error
	)
	for _, e := range entries {
		if !e.IsDir() || e.Name()[0] == '.' {
			continue
		}
		l, err := InspectLayer(filepath.Join(dir, e.Name()))
		switch {
		case err == nil:
			layers = append(layers, l)
		case !errdefs.IsNotFound(err):
			damaged = append(damaged, err)
		}
	}
	return layers, errors.Join(damaged...)
}

func readChain(root *inroot.Root) (parents []string, err error) {
	data, err := root.ReadFile(chainFile, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &parents)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", chainFile, err, errdefs.ErrDataLoss)
	}
	return parents, nil
}

// writeChain notes the parents of the layer in dir.
func writeChain(dir string, parents []string) error {
	if len(parents) == 0 {
		return nil
	}
	data, err := json.Marshal(parents)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, chainFile), append(data, '\n'), 0o600)
}

// pathsOf returns the directories of layers.
func pathsOf(layers []LayerDir) []string {
	paths := make([]string, 0, len(layers))
	for _, l := range layers {
		paths = append(paths, l.Path)
	}
	return paths
}

// openParents finds the layers in the directories, the nearest first, which must be read-only. Behind the last one come those
// that it notes as its parents: a layer is of no use without them.
func openParents(parents []string) ([]LayerDir, error) {
	layers := make([]LayerDir, 0, len(parents))
	add := func(dirs []string) error {
		for _, dir := range dirs {
			l, err := inspectLayer(dir)
			if err == nil && l.Scratch {
				err = fmt.Errorf("it is a scratch layer: %w", errdefs.ErrInvalidArgument)
			}
			if err != nil {
				return fmt.Errorf("find parent layer %s: %w", dir, err)
			}
			layers = append(layers, l)
		}
		return nil
	}
	if err := add(parents); err != nil || len(layers) == 0 {
		return nil, err
	}
	if err := add(layers[len(layers)-1].Parents); err != nil {
		return nil, err
	}
	return layers, nil
}

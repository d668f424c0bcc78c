package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/regf"
)

// HiveName is one of the registry hives that layers of Windows change together with their files. It is called as its file.
type HiveName string

// The hives, of which the machine's settings and those of its accounts consist.
const (
	DefaultHive  HiveName = "DEFAULT" // of who is not logged on; deltas call it DefaultUser
	SAMHive      HiveName = "SAM"
	SecurityHive HiveName = "SECURITY"
	SoftwareHive HiveName = "SOFTWARE"
	SystemHive   HiveName = "SYSTEM"
)

// hiveStems are what the hives are called in Hives, from hcsshim's internal/wclayer/cim/common.go.
var hiveStems = map[HiveName]string{
	DefaultHive: "DefaultUser", SAMHive: "Sam", SecurityHive: "Security", SoftwareHive: "Software", SystemHive: "System",
}

// HiveNames returns the hives in ascending order.
func HiveNames() []HiveName {
	return []HiveName{DefaultHive, SAMHive, SecurityHive, SoftwareHive, SystemHive}
}

// File is where a base layer has the hive among its files.
func (h HiveName) File() string { return "Files/Windows/System32/config/" + string(h) }

// Base is where a layer directory has the whole hive, as it is with all layers up to this one.
func (h HiveName) Base() string { return "Hives/" + hiveStems[h] + "_Base" }

// Delta is where a layer has what it changes in the hive below.
func (h HiveName) Delta() string { return "Hives/" + hiveStems[h] + "_Delta" }

// Hive is an open registry hive. It reads the layers' files when something of it is asked for: they must not change until it
// is closed.
type Hive struct {
	*regf.Hive
	files []*os.File
}

// Close closes the layers' files.
func (h *Hive) Close() error {
	var err error
	for _, f := range h.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// OpenHive returns a registry hive as a system on the layer directories, the nearest first, has it: that of the base layer
// with the deltas of all others. Layers imported on top of their parents have it ready; for others the deltas are merged now,
// in memory. A hive that its writer left dirty gets what its logs beside it have, and an empty file is a hive without keys,
// as Windows takes both.
//
// The error is of class errdefs.ErrNotFound if no layer has the hive, and of class errdefs.ErrInvalidArgument, with one of
// regf's, if a file is no such hive; it names layer and file.
func OpenHive(layers []string, name HiveName) (h *Hive, err error) {
	if !slices.Contains(HiveNames(), name) {
		return nil, fmt.Errorf("open registry hive %q: layers have none of that name: %w", name, errdefs.ErrInvalidArgument)
	}
	roots, err := openRoots(layers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeRoots(roots)) }()
	s := hiveStack{name: name, roots: roots, dirs: layers}
	if h, err = s.open(); err != nil {
		return nil, fmt.Errorf("open registry hive %s: %w", name, err)
	}
	return h, nil
}

// hiveStack is a hive of layers, the nearest first.
type hiveStack struct {
	name  HiveName
	roots []*inroot.Root
	dirs  []string // for errors
}

// open finds the nearest layer with the whole hive, and merges the deltas of those above it.
func (s *hiveStack) open() (*Hive, error) {
	var above []int
	for i, root := range s.roots {
		whole, err := s.whole(i)
		if err == nil && whole != nil {
			return s.merged(whole, above)
		}
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", s.dirs[i], err)
		}
		delta, err := findFile(root, s.name.Delta())
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", s.dirs[i], err)
		}
		if delta != "" {
			above = append(above, i)
		}
	}
	if len(above) > 0 {
		return nil, fmt.Errorf("layer %s has a delta, and no layer below has what it changes: %w", s.dirs[above[len(above)-1]], errdefs.ErrNotFound)
	}
	return nil, fmt.Errorf("no layer has it: %w", errdefs.ErrNotFound)
}

// whole opens the whole hive of a layer, which is nil where the layer has none: the base layer's may be among its files only.
func (s *hiveStack) whole(i int) (*Hive, error) {
	places := []string{s.name.Base()}
	if i == len(s.roots)-1 {
		places = append(places, s.name.File())
	}
	for _, place := range places {
		found, err := findFile(s.roots[i], place)
		if err != nil {
			return nil, err
		}
		if found != "" {
			return openWholeHive(s.roots[i], found, s.name.File())
		}
	}
	return nil, nil //nolint:nilnil // the layer has none
}

// merged applies the deltas of layers, the nearest first, to the whole hive below them, which it closes if that is no longer
// needed.
func (s *hiveStack) merged(whole *Hive, above []int) (*Hive, error) {
	now := whole.Hive
	for _, i := range slices.Backward(above) {
		data, err := mergeDelta(s.roots[i], s.name, now)
		if err == nil && data != nil {
			now, err = regf.Parse(data)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("layer %s: %w", s.dirs[i], err), whole.Close())
		}
	}
	if now == whole.Hive {
		return whole, nil
	}
	return &Hive{Hive: now}, whole.Close()
}

// mergeDelta returns what the hive below becomes by a layer's delta, and nothing if that changes nothing: the file is missing,
// or empty.
func mergeDelta(root *inroot.Root, name HiveName, below *regf.Hive) (data []byte, err error) {
	found, err := findFile(root, name.Delta())
	if err != nil || found == "" {
		return nil, err
	}
	file, size, err := openSized(root, found)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if size == 0 {
		return nil, nil
	}
	delta, err := regf.Open(file, size)
	if err != nil {
		return nil, badHive(found, err)
	}
	tree, err := regf.Merge(below, delta)
	if err != nil {
		return nil, badHive(found, err)
	}
	if data, err = tree.Bytes(); err != nil {
		return nil, badHive(found, err)
	}
	return data, nil
}

// badHive is the error of a file that is no hive, or none that fits. What cannot be read is not the layer's fault.
func badHive(name string, err error) error {
	if errors.Is(err, regf.ErrCorrupt) || errors.Is(err, regf.ErrUnsupported) || errors.Is(err, regf.ErrInvalid) {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// openWholeHive opens a hive; its logs are beside the name logsOf.
func openWholeHive(root *inroot.Root, name, logsOf string) (*Hive, error) {
	file, size, err := openSized(root, name)
	if err != nil {
		return nil, err
	}
	if size == 0 {
		h, err := emptyHive(path.Base(logsOf))
		return &Hive{Hive: h}, errors.Join(err, file.Close())
	}
	h, err := regf.Open(file, size)
	if err == nil && !h.Dirty() {
		_, err = h.Root()
	}
	switch {
	case err == nil && !h.Dirty():
		return &Hive{Hive: h, files: []*os.File{file}}, nil
	case err == nil || errors.Is(err, regf.ErrCorrupt): // a base block that was written by half is whole in a log
		replayed, replayErr := replayHive(root, name, logsOf)
		if replayErr == nil {
			return replayed, file.Close()
		}
		if err == nil {
			err = replayErr
		}
	}
	return nil, errors.Join(badHive(name, err), file.Close())
}

// emptyHive is what Windows makes of a file without content.
func emptyHive(name string) (*regf.Hive, error) {
	tree, err := regf.Minimal(name, 0)
	if err != nil {
		return nil, err
	}
	data, err := tree.Bytes()
	if err != nil {
		return nil, err
	}
	return regf.Parse(data)
}

// A HiveLog returns what is in the file beside a hive whose name has a suffix more, nil if there is none.
type HiveLog func(suffix string) ([]byte, error)

// ParseHive reads a hive that a layer has under a name, of which the last component counts, as OpenHive does: an empty file is a
// hive without keys, and what its writer left dirty, or wrote by half, gets what its logs have. data is the Hive's from then on.
// Errors of regf are of class errdefs.ErrInvalidArgument, too.
func ParseHive(name string, data []byte, log HiveLog) (*regf.Hive, error) {
	if len(data) == 0 {
		return emptyHive(path.Base(name))
	}
	h, err := regf.Parse(data)
	if err == nil && !h.Dirty() {
		_, err = h.Root()
	}
	if err != nil && errors.Is(err, regf.ErrCorrupt) || err == nil && h.Dirty() {
		replayed, replayErr := replay(data, log)
		if replayErr == nil {
			return replayed, nil
		}
		if err == nil {
			err = fmt.Errorf("replay its logs: %w", replayErr)
		}
	}
	if err != nil {
		return nil, badHive(name, err)
	}
	return h, nil
}

// replay completes a hive with its logs.
func replay(primary []byte, log HiveLog) (*regf.Hive, error) {
	var logs [][]byte
	for _, suffix := range []string{".LOG1", ".LOG2", ".LOG"} {
		data, err := log(suffix)
		if err != nil {
			return nil, err
		}
		if len(data) > 0 {
			logs = append(logs, data)
		}
	}
	data, err := regf.Replay(primary, logs...)
	if err != nil {
		return nil, err
	}
	h, err := regf.Parse(data)
	if err == nil {
		_, err = h.Root()
	}
	return h, err
}

// maxDirtyHive is how large a hive and its logs may be to be made whole, which is done in memory.
const maxDirtyHive = 512 << 20

func replayHive(root *inroot.Root, name, logsOf string) (*Hive, error) {
	primary, err := root.ReadFile(name, maxDirtyHive)
	if err != nil {
		return nil, err
	}
	h, err := replay(primary, func(suffix string) ([]byte, error) {
		found, err := findFile(root, logsOf+suffix)
		if err != nil || found == "" {
			return nil, err
		}
		return root.ReadFile(found, maxDirtyHive)
	})
	return &Hive{Hive: h}, err
}

// findFile returns a layer's file as it is spelled on the disk, and nothing if there is none: no such name, or a whiteout. What
// is no file is left to who opens it.
func findFile(root *inroot.Root, name string) (string, error) {
	spelled, err := newNTNames([]*inroot.Root{root}).spell(name)
	if err != nil {
		return "", err
	}
	st, err := root.Lstat(spelled)
	if isMissing(err) || err == nil && st.IsWhiteout() {
		return "", nil
	}
	return spelled, err
}

func openSized(root *inroot.Root, name string) (*os.File, int64, error) {
	file, err := openContent(root, name)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", name, err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, info.Size(), nil
}

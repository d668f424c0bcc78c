package rootfs

import (
	"bytes"
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// The names of a transport folder, which is how Windows passes layers on in a directory. docs/formats/transport-folder.md has
// the layout. The source is hcsshim's internal/wclayer/legacy.go, which reads and writes it.
const (
	sidecarSuffix  = ".$wcidirs$" // the file with the metadata of the directory that is called so without it
	tombstonesFile = "tombstones.txt"
	tombstonesHead = "\ufeffVersion 1.0"

	maxTombstones = 128 << 20 // bytes
	maxFileName   = 255       // bytes, Linux' NAME_MAX
)

// TransportOptions says how a transport folder is written. The zero value is right for root.
type TransportOptions struct {
	// UserXattr keeps what the folder on Windows' own file system would have in a file's metadata in user.* attributes.
	UserXattr UserXattrs
	// Parents are the directories of the layers below, the nearest first. Hard links may lead there, and directories that the
	// layer implies are as they are there.
	Parents []string
}

// staged reports whether the folder has an object as four bytes of attributes and a backup stream: what is in Files, and the
// directories Files and Hives themselves. All else is there as it is.
func staged(name string) bool {
	return strings.HasPrefix(name, "Files/") || name == string(layer.FilesPart) || name == string(layer.HivesPart)
}

// isSidecar reports whether Windows would take a name for that of a sidecar.
func isSidecar(name string) bool {
	n := len(name) - len(sidecarSuffix)
	return n >= 0 && strings.EqualFold(name[n:], sidecarSuffix)
}

// appendTombstone adds the line of a name that a layer removes.
func appendTombstone(b []byte, name string) ([]byte, error) {
	below, ok := strings.CutPrefix(name, string(layer.FilesPart)+"/")
	if !ok {
		return nil, fmt.Errorf("only what is below Files can be removed: %w", errdefs.ErrNotImplemented)
	}
	b = append(b, '\\')
	b = append(b, strings.ReplaceAll(below, "/", `\`)...)
	return append(b, '\n'), nil
}

// tombstones are the whiteouts of a transport folder by the directory that they are in, in upper case.
type tombstones struct {
	byDir map[string][]*layer.Entry
	dirs  []string // in their order
}

// parseTombstones reads the content of tombstones.txt.
func parseTombstones(b []byte) (*tombstones, error) {
	t := &tombstones{byDir: make(map[string][]*layer.Entry)}
	n := 0
	for line := range bytes.Lines(b) {
		n++
		text := strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r")
		if n == 1 {
			if text != tombstonesHead {
				return nil, fmt.Errorf("%s: it does not begin with a byte order mark and \"Version 1.0\": %w", tombstonesFile, errdefs.ErrInvalidArgument)
			}
			continue
		}
		if err := t.add(text); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", tombstonesFile, n, err)
		}
	}
	if n == 0 {
		return nil, fmt.Errorf("%s: it is empty: %w", tombstonesFile, errdefs.ErrInvalidArgument)
	}
	return t, nil
}

func (t *tombstones) add(line string) error {
	below, ok := strings.CutPrefix(line, `\`)
	if !ok || strings.Contains(below, "/") {
		return fmt.Errorf("%q is no path that begins with a backslash: %w", line, errdefs.ErrInvalidArgument)
	}
	e := &layer.Entry{
		Kind: layer.Whiteout, Name: string(layer.FilesPart) + "/" + strings.ReplaceAll(below, `\`, "/"), NT: new(ntfs.Meta),
	}
	if err := layer.CheckNT(e); err != nil {
		return fmt.Errorf("%q: %w", line, err)
	}
	dir := ntfs.Upcase(path.Dir(e.Name))
	if _, ok := t.byDir[dir]; !ok {
		t.dirs = append(t.dirs, dir)
	}
	t.byDir[dir] = append(t.byDir[dir], e)
	return nil
}

// take returns what is removed from a directory, once.
func (t *tombstones) take(dir string) []*layer.Entry {
	key := ntfs.Upcase(dir)
	all := t.byDir[key]
	delete(t.byDir, key)
	return all
}

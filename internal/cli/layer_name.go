package cli

import (
	"path"
	"strconv"
	"strings"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// layerName is what a person calls a file of a layer, or a stream of it, in
// the forms that layers of both kinds have.
type layerName struct {
	given  string
	posix  string
	nt     string // in a Windows layer, its part first
	stream string // there, "" for the file's own content
}

func parseLayerName(given string) layerName {
	n := layerName{given: given, posix: cleanLayerName(given)}
	name := strings.ReplaceAll(given, `\`, "/")
	drive := len(name) >= 2 && strings.EqualFold(name[:2], "c:")
	if drive {
		name = name[2:]
	}
	// The type behind a stream's name; the file's own content is a stream
	// without a name.
	if kind := ":$DATA"; len(name) > len(kind) && strings.EqualFold(name[len(name)-len(kind):], kind) {
		name = name[:len(name)-len(kind)]
	}
	name, n.stream, _ = strings.Cut(name, ":")
	n.nt = cleanLayerName(name)
	part, _ := layer.SplitPart(n.nt)
	for _, known := range []layer.Part{layer.FilesPart, layer.HivesPart, layer.UtilityVMPart} {
		if !drive && ntfs.EqualFold(string(part), string(known)) {
			return n
		}
	}
	n.nt = path.Join(string(layer.FilesPart), n.nt)
	return n
}

func cleanLayerName(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// String is the name in quotes, in which a backslash is one.
func (n layerName) String() string {
	quoted := strconv.Quote(n.given)
	if plain := `"` + n.given + `"`; strings.ReplaceAll(quoted, `\\`, `\`) == plain {
		return plain
	}
	return quoted
}

// isOf compares the names of files, as the layer's system does.
func (n layerName) isOf(e *layer.Entry) bool {
	if e.NT == nil && e.Stream == "" {
		return e.Name == n.posix
	}
	return ntfs.EqualFold(e.Name, n.nt)
}

// is reports whether the entry is the file or stream of that name.
func (n layerName) is(e *layer.Entry) bool {
	if e.NT == nil && e.Stream == "" {
		return e.Name == n.posix
	}
	return ntfs.EqualFold(e.Name, n.nt) && ntfs.EqualFold(e.Stream, n.stream)
}

// linked is the name behind a hard link.
func (n layerName) linked(target string) layerName {
	n.posix, n.nt = target, target
	n.given = target
	if n.stream != "" {
		n.given += ":" + n.stream
	}
	return n
}

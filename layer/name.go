package layer

import (
	"strings"
)

// The whiteout names of the OCI image specification (layer.md, "Whiteouts"),
// which come from AUFS.
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	aufsPrefix     = ".wh..wh." // AUFS's own bookkeeping: .wh..wh.plnk, .wh..wh.aufs, .wh..wh.orph
)

// cleanName returns name without empty and "." components, relative; the root
// itself is ".". Names with ".." components are refused, also those that stay
// inside the root: no program that makes layers writes them, and what they
// mean depends on symbolic links that the reader cannot see.
func (l *Limits) cleanName(name string) (string, error) {
	if len(name) > l.NameBytes {
		return "", exceeded("NameBytes", l.NameBytes)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", invalid("name contains a NUL byte")
	}
	for {
		switch {
		case strings.HasPrefix(name, "/"):
			name = name[1:]
		case strings.HasPrefix(name, "./"):
			name = name[2:]
		case strings.HasSuffix(name, "/"):
			name = name[:len(name)-1]
		default:
			return l.cleanInside(name)
		}
	}
}

// cleanInside cleans a name that neither starts nor ends with a slash.
func (l *Limits) cleanInside(name string) (string, error) {
	if name == "" || name == "." {
		return ".", nil
	}
	depth, odd := 0, false
	for part := range components(name) {
		switch part {
		case "..":
			return "", invalid("name has a %q component", "..")
		case "", ".":
			odd = true
		default:
			depth++
		}
	}
	if depth > l.Depth {
		return "", exceeded("Depth", l.Depth)
	}
	if odd {
		return joinComponents(name), nil
	}
	return name, nil
}

// components yields the parts of name between its slashes.
func components(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for {
			i := strings.IndexByte(name, '/')
			if i < 0 {
				yield(name)
				return
			}
			if !yield(name[:i]) {
				return
			}
			name = name[i+1:]
		}
	}
}

func joinComponents(name string) string {
	var b strings.Builder
	b.Grow(len(name))
	for part := range components(name) {
		if part == "" || part == "." {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('/')
		}
		b.WriteString(part)
	}
	if b.Len() == 0 {
		return "."
	}
	return b.String()
}

// meaning is what a name makes of its entry.
type meaning uint8

const (
	ordinary  meaning = iota
	whiteout          // of the name that is returned beside it
	opaque            // of the directory that is returned beside it
	forgotten         // AUFS's bookkeeping, of no concern to anybody else
)

// judge finds out what a cleaned name stands for.
func judge(name string) (meaning, string, error) {
	if !strings.Contains(name, whiteoutPrefix) {
		return ordinary, name, nil
	}
	dir := "" // with its slash
	for part := range components(name) {
		end := len(dir) + len(part)
		if !strings.HasPrefix(part, whiteoutPrefix) {
			dir = name[:min(end+1, len(name))]
			continue
		}
		if end < len(name) || part != opaqueName {
			return judgeWhiteout(name, dir, part)
		}
		if dir == "" {
			return opaque, ".", nil
		}
		return opaque, dir[:len(dir)-1], nil
	}
	return ordinary, name, nil
}

// judgeWhiteout judges a name by its first component with the whiteout prefix.
func judgeWhiteout(name, dir, part string) (meaning, string, error) {
	if strings.HasPrefix(part, aufsPrefix) && part != opaqueName {
		return forgotten, "", nil
	}
	if len(dir)+len(part) < len(name) {
		return 0, "", invalid("name leads through whiteout %q", part)
	}
	switch gone := part[len(whiteoutPrefix):]; gone {
	case "", ".", "..":
		return 0, "", invalid("whiteout of %q", gone)
	default:
		return whiteout, dir + gone, nil
	}
}

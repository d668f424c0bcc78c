package regf

import (
	"fmt"
	"strconv"
	"strings"
)

// An Edit is what regedit's text says of one key.
type Edit struct {
	Path   string
	Delete bool    // the key and all below it go
	Values []Value // to set, or, as tombstones, to delete
}

// ParseText reads regedit's text, version 5, in UTF-8 or, after a byte order mark, UTF-16.
func ParseText(data []byte) ([]Edit, error) {
	p := textParser{line: 1}
	switch {
	case len(data) >= 2 && data[0] == 0xFF && data[1] == 0xFE:
		p.rest = rawName{data[2 : len(data)&^1], true}.String()
	case strings.HasPrefix(string(data[:min(3, len(data))]), "\ufeff"):
		p.rest = string(data[3:])
	default:
		p.rest = string(data)
	}
	edits, err := p.parse()
	if err != nil {
		return nil, fmt.Errorf("parse registry text, line %d: %w", p.line, err)
	}
	return edits, nil
}

type textParser struct {
	rest string
	line int
}

// next returns the text up to the end of the line, without it.
func (p *textParser) next() string {
	line, rest, found := strings.Cut(p.rest, "\n")
	p.rest = rest
	if found {
		p.line++
	}
	return strings.TrimSuffix(line, "\r")
}

func (p *textParser) parse() ([]Edit, error) {
	if head := strings.TrimSpace(p.next()); head != textHeader {
		return nil, fmt.Errorf("no line %q at the beginning, but %.40q: %w", textHeader, head, ErrUnsupported)
	}
	var edits []Edit
	for p.rest != "" {
		p.rest = strings.TrimLeft(p.rest, " \t")
		switch {
		case p.rest == "":
		case strings.ContainsRune(";\r\n", rune(p.rest[0])):
			p.next()
		case p.rest[0] == '[':
			e, err := parseKeyLine(p.next())
			if err != nil {
				return nil, err
			}
			edits = append(edits, e)
		case len(edits) == 0 || edits[len(edits)-1].Delete:
			return nil, fmt.Errorf("value outside of a key: %w", ErrInvalid)
		default:
			v, err := p.value()
			if err != nil {
				return nil, err
			}
			e := &edits[len(edits)-1]
			e.Values = append(e.Values, v)
		}
	}
	return edits, nil
}

func parseKeyLine(line string) (Edit, error) {
	path, found := strings.CutSuffix(strings.TrimRight(line, " \t"), "]")
	path, remove := strings.CutPrefix(path[1:], "-")
	if !found || path == "" {
		return Edit{}, fmt.Errorf("no key in %.60q: %w", line, ErrInvalid)
	}
	return Edit{Path: path, Delete: remove}, nil
}

func (p *textParser) value() (Value, error) {
	var v Value
	var err error
	if p.rest[0] == '@' {
		p.rest = p.rest[1:]
	} else if v.Name, err = p.quoted(); err != nil {
		return v, err
	}
	p.rest = strings.TrimLeft(p.rest, " \t")
	if !strings.HasPrefix(p.rest, "=") {
		return v, fmt.Errorf("no = after the name %.60q: %w", v.Name, ErrInvalid)
	}
	p.rest = strings.TrimLeft(p.rest[1:], " \t")
	if strings.HasPrefix(p.rest, `"`) {
		s, err := p.quoted()
		v.Type, v.Data = TypeString, append(utf16Bytes(s), 0, 0)
		return v, err
	}
	return v, p.data(&v)
}

// quoted reads a string in quotes, which may have line breaks in it.
func (p *textParser) quoted() (string, error) {
	if p.rest[0] != '"' {
		return "", fmt.Errorf("no name in quotes: %w", ErrInvalid)
	}
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; c {
		case '"':
			p.rest = p.rest[i+1:]
			return b.String(), nil
		case '\\':
			if i++; i < len(p.rest) {
				b.WriteByte(p.rest[i])
			}
		default:
			if c == '\n' {
				p.line++
			}
			b.WriteByte(c)
		}
	}
	return "", fmt.Errorf("string without an end: %w", ErrInvalid)
}

// data reads what is no string: -, dword: or hex:, which a backslash continues on the next line.
func (p *textParser) data(v *Value) error {
	line := strings.TrimSpace(p.next())
	kind, digits, found := strings.Cut(line, ":")
	switch {
	case line == "-":
		v.Tombstone = true
		return nil
	case kind == "dword":
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 16, 32)
		if err != nil {
			return fmt.Errorf("no number in %.60q: %w", line, ErrInvalid)
		}
		v.Type, v.Data = TypeDWord, []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}
		return nil
	case kind == "hex" && found:
		v.Type = TypeBinary
	case strings.HasPrefix(kind, "hex(") && strings.HasSuffix(kind, ")") && found:
		n, err := strconv.ParseUint(kind[4:len(kind)-1], 16, 32)
		if err != nil {
			return fmt.Errorf("no type in %.60q: %w", line, ErrInvalid)
		}
		v.Type = Type(n)
	default:
		return fmt.Errorf("no data in %.60q: %w", line, ErrInvalid)
	}
	return p.hex(v, digits)
}

func (p *textParser) hex(v *Value, line string) error {
	for {
		part, more := strings.CutSuffix(line, `\`)
		for digits := range strings.SplitSeq(part, ",") {
			if digits = strings.TrimSpace(digits); digits == "" {
				continue
			}
			n, err := strconv.ParseUint(digits, 16, 8)
			if err != nil {
				return fmt.Errorf("no byte in %.60q: %w", digits, ErrInvalid)
			}
			v.Data = append(v.Data, byte(n))
		}
		if !more || p.rest == "" {
			return nil
		}
		line = strings.TrimSpace(p.next())
	}
}

// Apply does the edits, in order, to the keys below prefix, which is the path of the tree's root in them, as
// HKEY_LOCAL_MACHINE\SOFTWARE.
func (t *Tree) Apply(prefix string, edits []Edit) error {
	for _, e := range edits {
		if err := t.apply(prefix, e); err != nil {
			return fmt.Errorf("apply edit of key %q: %w", e.Path, err)
		}
	}
	return nil
}

func (t *Tree) apply(prefix string, e Edit) error {
	path, ok := pathBelow(prefix, e.Path)
	if !ok {
		return fmt.Errorf("not below %q: %w", prefix, ErrInvalid)
	}
	if e.Delete {
		return t.remove(path)
	}
	n, err := t.root.Create(path)
	if err != nil {
		return err
	}
	for _, v := range e.Values {
		if err := v.check(); err != nil {
			return err
		}
	}
	n.overlayValues(e.Values)
	return nil
}

func pathBelow(prefix, path string) (string, bool) {
	if len(path) < len(prefix) || !EqualNames(path[:len(prefix)], prefix) {
		return "", false
	}
	path = path[len(prefix):]
	if prefix == "" || path == "" {
		return path, true
	}
	return strings.CutPrefix(path, `\`)
}

func (t *Tree) remove(path string) error {
	path = strings.TrimRight(path, `\`)
	if path == "" {
		return fmt.Errorf("the hive's root cannot go: %w", ErrInvalid)
	}
	n := t.root
	for {
		part, rest, more := strings.Cut(path, `\`)
		if !more {
			return n.DeleteSubkey(part)
		}
		i, found, err := n.find(nameOf(part))
		if err != nil || !found {
			return err
		}
		if n, err = n.loadChild(i); err != nil {
			return err
		}
		path = rest
	}
}

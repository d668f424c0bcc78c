package regf

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// The text is that of regedit's files, https://learn.microsoft.com/troubleshoot/windows-server/performance/add-modify-delete-registry-subkeys-values.

// textHeader is the first line of the one version of the text that has UTF-16 strings.
const textHeader = "Windows Registry Editor Version 5.00"

// A TextEncoding is how the characters of regedit's text are written.
type TextEncoding int

// The encodings. Regedit itself writes UTF-16 with a byte order mark.
const (
	UTF8 TextEncoding = iota
	UTF16
)

// WriteText prints a key and all below it as regedit's text; path is the key's own. It is a [TextWriter] for one key.
func WriteText(w io.Writer, k Key, path string, encoding TextEncoding) error {
	t := NewTextWriter(w, encoding)
	if err := t.Write(k, path); err != nil {
		return err
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print key %q: %w", path, err)
	}
	return nil
}

// A TextWriter writes regedit's text. Its out keeps the first error until it is flushed.
type TextWriter struct {
	out    *bufio.Writer
	wide   bool
	begun  bool
	budget *budget
}

// NewTextWriter returns a writer of one text to w.
func NewTextWriter(w io.Writer, encoding TextEncoding) *TextWriter {
	return &TextWriter{out: bufio.NewWriterSize(w, 64<<10), wide: encoding == UTF16}
}

// Flush writes what is not written yet.
func (t *TextWriter) Flush() error { return t.out.Flush() }

// Write prints a key, of any hive, and all below it; path is the key's own. In a delta a tombstone is [-key] or "value"=-, a
// superseding tree [-key] and [key]. Regedit's text has no place for classes, times and security descriptors, none for a key
// that supersedes its values alone, and none for names with a line break, or of keys with a backslash: of the last three
// comments tell. A string with control characters is hexadecimal.
func (t *TextWriter) Write(k Key, path string) error {
	if !t.begun {
		t.begun = true
		if t.wide {
			_, _ = t.out.Write([]byte{0xFF, 0xFE})
		}
		t.print(textHeader, "\r\n")
	}
	t.budget = k.h.budget()
	if err := t.key(k, path, 0, LayerMerge); err != nil {
		return fmt.Errorf("print key %q: %w", path, err)
	}
	return nil
}

func (t *TextWriter) print(parts ...string) {
	for _, s := range parts {
		if t.wide {
			_, _ = t.out.Write(utf16Bytes(s))
		} else {
			_, _ = t.out.WriteString(s)
		}
	}
}

func (t *TextWriter) key(k Key, path string, depth int, above LayerSemantics) error {
	subkeys, err := t.budget.take(k, depth)
	if err != nil {
		return err
	}
	s := k.Semantics()
	if s == LayerTombstone || s == LayerSupersedeTree && above != s {
		t.print("\r\n[-", path, "]\r\n")
	}
	if s == LayerTombstone {
		return nil
	}
	t.print("\r\n[", path, "]\r\n")
	if s == LayerSupersedeLocal {
		t.print("; without the values below\r\n")
	}
	for raw, err := range k.rawValues() {
		if err != nil {
			return err
		}
		v, cells, err := k.h.value(raw)
		if err != nil {
			return err
		}
		if err := t.budget.spend(raw.off, uint32(len(raw.vk)), cells); err != nil { //nolint:gosec // a cell's size
			return err
		}
		t.value(v)
	}
	for _, off := range subkeys {
		sub, err := k.h.key(off)
		if err != nil {
			return err
		}
		if strings.ContainsAny(sub.Name(), lineBreaks+`\`) {
			t.print(fmt.Sprintf("\r\n; the key %q below [%s], whose name has no place here\r\n", sub.Name(), path))
			continue
		}
		if err := t.key(sub, joinPath(path, sub.Name()), depth+1, s); err != nil {
			return err
		}
	}
	return nil
}

// lineBreaks would end a line of the text, and what follows be another.
const lineBreaks = "\r\n"

var textEscape = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func (t *TextWriter) value(v Value) {
	if strings.ContainsAny(v.Name, lineBreaks) {
		t.print(fmt.Sprintf("; the value %q, whose name has no place here\r\n", v.Name))
		return
	}
	name := "@="
	if v.Name != "" {
		name = `"` + textEscape.Replace(v.Name) + `"=`
	}
	t.print(name)
	text, isText := plainText(v)
	switch {
	case v.Tombstone:
		t.print("-")
	case isText:
		t.print(`"`, textEscape.Replace(text), `"`)
	case v.Type == TypeDWord && len(v.Data) == 4:
		t.print(fmt.Sprintf("dword:%08x", le32(v.Data)))
	default:
		t.hex(v, len(name))
	}
	t.print("\r\n")
}

// plainText returns the text of a string that can be printed as such: with one NUL, at its end, and no control characters.
func plainText(v Value) (string, bool) {
	n := len(v.Data)
	if v.Type != TypeString || n < 2 || n%2 != 0 || v.Data[n-1]|v.Data[n-2] != 0 {
		return "", false
	}
	s := rawName{v.Data[:n-2], true}.String()
	return s, strings.IndexFunc(s, unicode.IsControl) < 0
}

// hex prints bytes in lines of at most 80 characters, as regedit does.
func (t *TextWriter) hex(v Value, column int) {
	head := "hex:"
	if v.Type != TypeBinary {
		head = fmt.Sprintf("hex(%x):", uint32(v.Type))
	}
	const digits = "0123456789abcdef"
	t.print(head)
	column += len(head)
	var line []byte
	for i, b := range v.Data {
		line = append(line, digits[b>>4], digits[b&15])
		if i == len(v.Data)-1 {
			break
		}
		line = append(line, ',')
		if column+len(line) > 76 {
			t.print(string(line), "\\\r\n  ")
			line, column = line[:0], 2
		}
	}
	t.print(string(line))
}

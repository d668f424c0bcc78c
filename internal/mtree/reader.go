package mtree

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"strconv"
	"strings"
	"time"
)

// ErrInvalid is the error of what is no manifest.
var ErrInvalid = errors.New("invalid manifest")

// maxLine bounds a line: an object may have many extended attributes.
const maxLine = 64 << 20

// Manifest is a manifest that was read.
type Manifest struct {
	Entries map[string]*Entry // by name
	Done    time.Time         // what the Writer was told; zero if unknown
}

// Read reads a manifest, of ours or another program's. Keywords that this package does not know are left out; names that
// lead out of the tree are an error. Of entries with one name the last counts.
func Read(r io.Reader) (*Manifest, error) {
	m := &Manifest{Entries: make(map[string]*Entry)}
	reader := NewReader(r)
	for {
		e, err := reader.Next()
		if err == io.EOF {
			m.Done = reader.Done()
			return m, nil
		}
		if err != nil {
			return nil, err
		}
		m.Entries[e.Name] = e
	}
}

// Reader reads a manifest as Read does, entry by entry.
type Reader struct {
	s *bufio.Scanner
	p parser
	n int // lines so far
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), maxLine)
	s.Split(logicalLines)
	return &Reader{s: s, p: parser{set: Entry{Type: File}, dir: "."}}
}

// Next returns the next entry, in the order in which the manifest has them, or io.EOF.
func (r *Reader) Next() (*Entry, error) {
	for r.s.Scan() {
		r.n++
		e, err := r.p.parse(r.s.Text())
		if err != nil {
			return nil, fmt.Errorf("read manifest, line %d: %w", r.n, err)
		}
		if e != nil {
			return e, nil
		}
	}
	if err := r.s.Err(); err != nil {
		return nil, fmt.Errorf("read manifest: %w: %w", ErrInvalid, err)
	}
	return nil, io.EOF
}

// Done returns what the Writer was told, or the zero time, when Next has returned io.EOF.
func (r *Reader) Done() time.Time { return r.p.done }

// ReadDone returns what the Writer was told when it was closed, if that is the last that the manifest says, or the zero time.
// The next read begins at the start.
func ReadDone(r io.ReadSeeker) (time.Time, error) {
	const longest = int64(len(endMark)) + 16
	var p parser
	end, err := r.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = r.Seek(max(end-longest, 0), io.SeekStart)
	}
	var tail []byte
	if err == nil {
		tail, err = io.ReadAll(r)
	}
	if err == nil {
		_, err = r.Seek(0, io.SeekStart)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read the end of the manifest: %w", err)
	}
	last := strings.TrimSuffix(string(tail), "\n")
	p.comment(last[strings.LastIndexByte(last, '\n')+1:])
	return p.done, nil
}

// logicalLines splits into lines, of which one that ends in a backslash goes on in the next. No name ends in one, as vis(3)
// doubles it.
func logicalLines(data []byte, atEOF bool) (int, []byte, error) {
	for at := 0; ; {
		i := bytes.IndexByte(data[at:], '\n')
		if i < 0 {
			break
		}
		end := at + i
		back := len(data[:end]) - len(bytes.TrimRight(data[:end], `\`))
		if back%2 == 0 || bytes.HasPrefix(bytes.TrimLeft(data, " \t"), []byte("#")) {
			return end + 1, data[:end], nil
		}
		at = end + 1
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

type parser struct {
	done time.Time
	set  Entry
	dir  string
	deep []string

	object Entry // what our comment says of the next entry
}

// parse takes a line, and returns the entry that it is, if it is one.
func (p *parser) parse(line string) (*Entry, error) {
	line = strings.TrimLeft(line, " \t")
	switch {
	case strings.HasPrefix(line, "#"):
		p.comment(line)
		return nil, nil
	case line == "":
		return nil, nil
	}
	if strings.Contains(line, "\\\n") {
		line = strings.ReplaceAll(line, "\\\n", " ")
	}
	name, keys, _ := strings.Cut(line, " ")
	switch {
	case name == "/set":
		return nil, p.set.apply(keys)
	case name == "/unset":
		p.set = Entry{Type: File}
		return nil, nil
	case strings.HasPrefix(name, "/"):
		return nil, nil
	case name == "..":
		if len(p.deep) > 0 {
			p.dir, p.deep = p.deep[len(p.deep)-1], p.deep[:len(p.deep)-1]
		}
		return nil, nil
	}
	return p.entry(name, keys)
}

// comment reads those that are ours; from others nothing follows.
func (p *parser) comment(line string) {
	if end, ok := strings.CutPrefix(line, endMark); ok {
		if ns, err := strconv.ParseInt(end, 36, 64); err == nil {
			p.done = time.Unix(0, ns)
		}
		return
	}
	line, ours := strings.CutPrefix(line, objectMark)
	if !ours {
		return
	}
	inode, line, _ := strings.Cut(line, " ")
	changed, device, isDevice := strings.Cut(line, " ")
	number, err1 := strconv.ParseUint(inode, 36, 64)
	ns, err2 := strconv.ParseInt(changed, 36, 64)
	if err1 != nil || err2 != nil {
		return
	}
	p.object = Entry{Inode: number, Changed: time.Unix(0, ns)}
	major, minor, _ := strings.Cut(device, ":")
	m, err1 := strconv.ParseUint(major, 10, 32)
	n, err2 := strconv.ParseUint(minor, 10, 32)
	if isDevice && err1 == nil && err2 == nil {
		p.object.Major, p.object.Minor, p.object.Keys = uint32(m), uint32(n), KeyDevice
	}
}

func (p *parser) entry(encoded, keys string) (*Entry, error) {
	name, err := unvis(encoded)
	if err != nil {
		return nil, err
	}
	e := p.set
	e.Inode, e.Changed, e.Major, e.Minor = p.object.Inode, p.object.Changed, p.object.Major, p.object.Minor
	e.Keys |= p.object.Keys
	p.object = Entry{}
	if err := e.apply(keys); err != nil {
		return nil, fmt.Errorf("entry %q: %w", name, err)
	}
	relative := !strings.Contains(encoded, "/")
	if relative {
		e.Name = path.Join(p.dir, name)
	} else {
		e.Name = path.Clean(name)
	}
	if strings.Contains(name, "/") && relative || strings.ContainsRune(name, 0) || name == ".." ||
		e.Name == ".." || strings.HasPrefix(e.Name, "../") || path.IsAbs(e.Name) {
		return nil, fmt.Errorf("name %q leads elsewhere: %w", name, ErrInvalid)
	}
	if relative && e.Type == Dir {
		p.deep = append(p.deep, p.dir)
		p.dir = e.Name
	}
	return &e, nil
}

// apply sets the fields that the keywords give.
func (e *Entry) apply(keys string) error {
	shared := e.Xattrs
	for keys != "" {
		var word string
		word, keys, _ = strings.Cut(keys, " ")
		key, value, _ := strings.Cut(strings.TrimSpace(word), "=")
		if attr, is := strings.CutPrefix(key, "xattr."); is {
			if err := e.xattr(attr, value, shared); err != nil {
				return err
			}
			shared = nil
			continue
		}
		if err := e.key(key, value); err != nil {
			return fmt.Errorf("keyword %q: %w: %w", word, ErrInvalid, err)
		}
	}
	return nil
}

func (e *Entry) xattr(encoded, value string, shared map[string]string) error {
	attr, err := unvis(encoded)
	if err != nil {
		return err
	}
	data, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return fmt.Errorf("extended attribute %q: %w: %w", attr, ErrInvalid, err)
	}
	if e.Xattrs == nil || shared != nil {
		e.Xattrs = make(map[string]string, 1)
		maps.Copy(e.Xattrs, shared)
	}
	e.Xattrs[attr] = string(data)
	e.Keys |= KeyXattr
	return nil
}

// key sets one field; keywords that are not known change nothing.
func (e *Entry) key(key, value string) (err error) {
	switch key {
	case "type":
		e.Type = value
		e.Keys |= KeyType
	case "mode":
		e.Mode, err = number(value, 8)
		e.Keys |= KeyMode
	case "uid":
		e.UID, err = number(value, 10)
		e.Keys |= KeyUID
	case "gid":
		e.GID, err = number(value, 10)
		e.Keys |= KeyGID
	case "nlink":
		e.Nlink, err = strconv.ParseUint(value, 10, 64)
		e.Keys |= KeyNlink
	case "size":
		e.Size, err = strconv.ParseInt(value, 10, 64)
		e.Keys |= KeySize
	case "time", "tar_time":
		seconds, _, _ := strings.Cut(value, ".")
		e.Seconds, err = strconv.ParseInt(seconds, 10, 64)
		e.Keys |= KeyTime
	case "link":
		e.Link, err = unvis(value)
		e.Keys |= KeyLink
	case "sha256", "sha256digest":
		var n int
		if len(value) != 2*len(e.SHA256) {
			return hex.ErrLength
		}
		n, err = hex.Decode(e.SHA256[:], []byte(value))
		if err == nil && n != len(e.SHA256) {
			err = hex.ErrLength
		}
		e.Keys |= KeySHA256
	}
	return err
}

func number(s string, base int) (uint32, error) {
	n, err := strconv.ParseUint(s, base, 32)
	return uint32(n), err
}

// unvis decodes what vis(3) makes of a name: octal, C style, meta and control escapes.
func unvis(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b = append(b, s[i])
			continue
		}
		c, n, ok := escape(s[i+1:])
		if !ok {
			return "", fmt.Errorf("name %q has an escape that means nothing: %w", s, ErrInvalid)
		}
		b = append(b, c)
		i += n
	}
	return string(b), nil
}

var cEscapes = map[byte]byte{
	'\\': '\\', '"': '"', 's': ' ', 'n': '\n', 'r': '\r', 'b': '\b', 'a': '\a', 'v': '\v', 't': '\t', 'f': '\f',
}

// escape decodes what follows a backslash and says how long it is.
func escape(s string) (c byte, n int, ok bool) {
	if s == "" {
		return 0, 0, false
	}
	if c, ok := cEscapes[s[0]]; ok {
		return c, 1, true
	}
	if len(s) >= 3 {
		if v, err := strconv.ParseUint(s[:3], 8, 8); err == nil {
			return byte(v), 3, true
		}
	}
	var meta byte
	if s[0] == 'M' && len(s) > 1 {
		meta, n, s = 0x80, 1, s[1:]
	}
	switch {
	case len(s) >= 2 && s[0] == '^' && s[1] == '?':
		return 0x7f | meta, n + 2, true
	case len(s) >= 2 && s[0] == '^':
		return (s[1]-'@')&0x1f | meta, n + 2, true
	case len(s) >= 2 && s[0] == '-' && meta != 0:
		return s[1] | meta, n + 2, true
	}
	return 0, 0, false
}

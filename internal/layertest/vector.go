// Package layertest makes layers for tests, good and hostile ones. It has its
// own tar encoder, which writes what no proper one would, and the attack
// vectors that both the reader of layers and what unpacks them must withstand.
//
// It is not for anything but tests.
package layertest

import (
	"embed"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

//go:embed vectors/*.txt nt/*.txt
var files embed.FS

// Vector is one attack, or one oddity that is none, and what must come of it.
//
// A file of vectors has a stanza for each, of lines with a keyword:
//
//	== NAME              starts the vector
//	# TEXT               what it does, and the right answer's reason
//	want OUTCOME [TEXT]  what reading its layers ends with: ok, invalid (errdefs.ErrInvalidArgument),
//	                     exhausted (ErrResourceExhausted) or cut (ErrDataLoss); and a part of the error's text
//	gives KIND NAME [-> LINK]   an entry that the reader gives, in order, before it ends
//	limit FIELD N        a field of layer.Limits
//	apply OUTCOME        what applying its layers ends with: ok, error, or either; default: ok if want is ok
//	tree KIND NAME [CONTENT | -> LINK]   an object that is there afterwards
//	gone NAME            a name that is not there afterwards
//	mode NAME OCTAL      the mode bits that it has afterwards
//	attr NAME KEY        an extended attribute that it has afterwards
//	noattr NAME KEY      one that it has not
//	layer                starts the second layer, and so on
//	entry KIND NAME [KEY=VALUE]...   an entry of the layer
//	global KEY=VALUE     a global PAX header
//	zeros N              N blocks of zeros
//	raw TEXT             the bytes, padded to a block
//
// Those of Windows layers have further lines:
//
//	gives KIND NAME [-> LINK] [: STREAM] [implied]
//	warns PROBLEM        a layer.Warning of reading it, in order; strictly read, the layer is refused
//	parts                entries for Files and Hives, which the reader gives
//
// A layer ends in two blocks of zeros unless "zeros" is among its lines.
// Words with spaces or odd bytes are quoted as in Go. An entry's KIND is file,
// dir, symlink, hardlink, char, block, fifo, or a quoted tar type. Its keys are
// link, content, repeat (how often the content comes), mode, uid, gid, size (of the header, if not the content's), major, minor, prefix,
// via (ustar, pax, gnu: where name and link stand), pax.KEY (a PAX record).
type Vector struct {
	File, Name, About string

	Want   string           // ok, invalid, exhausted, cut
	Why    string           // part of the error's text
	Gives  []string         // "kind name" or "kind name -> link", quoted as by %q; and ": stream", "implied"
	Warns  []string         // the problems of the warnings
	Limits map[string]int64 // fields of layer.Limits
	Apply  string           // ok, error, either
	Tree   []Object
	Gone   []string
	Looks  []Look
	Layers [][]byte // tar streams, lowest first
}

// Object is what a vector expects at a name of the unpacked tree.
type Object struct {
	Kind, Name string
	Content    string // files
	Link       string // symlinks
}

// Look is what a vector says of an object's metadata: Fact is "mode", with Value in octal, "attr" or "noattr".
type Look struct{ Fact, Name, Value string }

// Vectors returns the vectors of the POSIX encoding.
func Vectors() ([]Vector, error) { return vectors("vectors/*.txt") }

// NTVectors returns those of Windows layers.
func NTVectors() ([]Vector, error) { return vectors("nt/*.txt") }

func vectors(pattern string) ([]Vector, error) {
	names, err := fs.Glob(files, pattern)
	if err != nil {
		return nil, err
	}
	var all []Vector
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		vs, err := Parse(path.Base(name), string(text))
		if err != nil {
			return nil, err
		}
		all = append(all, vs...)
	}
	return all, nil
}

// Parse reads the vectors of a file.
func Parse(file, text string) ([]Vector, error) {
	var p parser
	for i, line := range strings.Split(text, "\n") {
		if err := p.line(strings.TrimSpace(line)); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
		}
	}
	p.endVector()
	for i := range p.all {
		p.all[i].File = file
		if p.all[i].Want == "" {
			return nil, fmt.Errorf("%s: %s: no \"want\" line", file, p.all[i].Name)
		}
	}
	return p.all, nil
}

type parser struct {
	all   []Vector
	v     *Vector
	layer []byte
	ended bool // by zeros of its own
}

func (p *parser) line(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	if word == "==" {
		p.endVector()
		p.v = &Vector{Name: rest}
		return nil
	}
	if line == "" || p.v == nil {
		return nil
	}
	if word == "#" {
		p.v.About += strings.TrimSpace(rest) + "\n"
		return nil
	}
	args, err := words(rest)
	if err != nil {
		return err
	}
	if len(args) == 0 && word != "layer" && word != "parts" {
		return fmt.Errorf("%q lacks its argument", word)
	}
	return p.statement(word, args)
}

func (p *parser) statement(word string, args []string) (err error) {
	switch word {
	case "want":
		p.v.Want = args[0]
		if len(args) > 1 {
			p.v.Why = args[1]
		}
	case "apply":
		p.v.Apply = args[0]
	case "gone":
		p.v.Gone = append(p.v.Gone, args[0])
	case "mode", "attr", "noattr":
		if len(args) != 2 {
			return fmt.Errorf("%q takes a name and a value", word)
		}
		p.v.Looks = append(p.v.Looks, Look{word, args[0], args[1]})
	case "gives":
		p.v.Gives = append(p.v.Gives, gives(args))
	case "tree":
		return p.tree(args)
	case "limit":
		if p.v.Limits == nil {
			p.v.Limits = make(map[string]int64)
		}
		p.v.Limits[args[0]], err = strconv.ParseInt(args[1], 0, 64)
	case "warns":
		p.v.Warns = append(p.v.Warns, strings.Join(args, " "))
	case "parts":
		return p.parts()
	case "layer":
		p.endLayer()
	case "zeros":
		n, err := strconv.Atoi(args[0])
		p.layer = append(p.layer, make([]byte, n*blockSize)...)
		p.ended = true
		return err
	case "raw":
		p.layer = Pad(append(p.layer, args[0]...))
	case "global":
		k, v, _ := strings.Cut(args[0], "=")
		p.layer = AppendMeta(p.layer, 'g', Record(k, v))
	case "entry":
		p.layer, err = appendEntry(p.layer, args)
	default:
		return fmt.Errorf("unknown keyword %q", word)
	}
	return err
}

func gives(args []string) string {
	var s strings.Builder
	s.WriteString(args[0] + " " + strconv.Quote(args[1]))
	for i := 2; i < len(args); i++ {
		s.WriteString(" " + args[i])
		if args[i] != "implied" && i+1 < len(args) {
			i++
			s.WriteString(" " + strconv.Quote(args[i]))
		}
	}
	return s.String()
}

// parts adds what every Windows layer begins with.
func (p *parser) parts() (err error) {
	for _, name := range []string{"Files", "Hives"} {
		p.v.Gives = append(p.v.Gives, gives([]string{"dir", name}))
		if p.layer, err = appendEntry(p.layer, []string{"dir", name, "pax.MSWINDOWS.fileattr=16"}); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) tree(args []string) error {
	o := Object{Kind: args[0], Name: args[1]}
	switch {
	case len(args) == 4:
		o.Link = args[3]
	case len(args) == 3:
		o.Content = args[2]
	}
	p.v.Tree = append(p.v.Tree, o)
	return nil
}

func (p *parser) endLayer() {
	if !p.ended {
		p.layer = append(p.layer, make([]byte, 2*blockSize)...)
	}
	p.v.Layers = append(p.v.Layers, p.layer)
	p.layer, p.ended = nil, false
}

func (p *parser) endVector() {
	if p.v == nil {
		return
	}
	p.endLayer()
	if p.v.Apply == "" {
		p.v.Apply = "error"
		if p.v.Want == "ok" {
			p.v.Apply = "ok"
		}
	}
	p.all = append(p.all, *p.v)
	p.v = nil
}

// words splits a line at spaces outside of quotes, and unquotes.
func words(s string) ([]string, error) {
	var out []string
	for s = strings.TrimLeft(s, " "); s != ""; s = strings.TrimLeft(s, " ") {
		var word string
		for s != "" && s[0] != ' ' {
			if s[0] != '"' {
				word, s = word+s[:1], s[1:]
				continue
			}
			q, err := strconv.QuotedPrefix(s)
			if err != nil {
				return nil, fmt.Errorf("quoting in %q: %w", s, err)
			}
			u, err := strconv.Unquote(q)
			if err != nil {
				return nil, fmt.Errorf("quoting in %q: %w", s, err)
			}
			word, s = word+u, s[len(q):]
		}
		out = append(out, word)
	}
	return out, nil
}

var kinds = map[string]byte{
	"file": '0', "hardlink": '1', "symlink": '2', "char": '3', "block": '4', "dir": '5', "fifo": '6',
}

// appendEntry appends the headers and content of an "entry" line.
func appendEntry(b []byte, args []string) ([]byte, error) {
	if len(args) < 2 {
		return nil, fmt.Errorf("entry has no name")
	}
	h := Header{Name: args[1], Type: kinds[args[0]], Mode: 0o644, ModTime: 1 << 30}
	if h.Type == 0 {
		h.Type = args[0][0]
	}
	if h.Type == '5' {
		h.Mode = 0o755
	}
	var content, via, records string
	size, repeat := int64(math.MinInt64), int64(1)
	for _, arg := range args[2:] {
		k, v, _ := strings.Cut(arg, "=")
		if key, ok := strings.CutPrefix(k, "pax."); ok {
			records += Record(key, v)
			continue
		}
		texts := map[string]*string{"link": &h.Link, "content": &content, "via": &via, "prefix": &h.Prefix}
		numbers := map[string]*int64{
			"mode": &h.Mode, "uid": &h.UID, "gid": &h.GID, "size": &size, "major": &h.Major, "minor": &h.Minor, "repeat": &repeat,
		}
		var err error
		if t := texts[k]; t != nil {
			*t = v
		} else if n := numbers[k]; n != nil {
			*n, err = strconv.ParseInt(v, 0, 64)
		} else {
			err = fmt.Errorf("unknown key %q", k)
		}
		if err != nil {
			return nil, err
		}
	}
	content = strings.Repeat(content, int(repeat))
	if h.Size = size; size == math.MinInt64 {
		h.Size = int64(len(content))
	}
	switch via {
	case "pax":
		records += Record("path", h.Name)
		if h.Link != "" {
			records += Record("linkpath", h.Link)
		}
	case "gnu":
		b = AppendMeta(b, 'L', h.Name+"\x00")
		if h.Link != "" {
			b = AppendMeta(b, 'K', h.Link+"\x00")
		}
		h.Magic = "ustar  \x00"
	}
	if via == "pax" || via == "gnu" {
		h.Name, h.Link = "decoy", ""
	}
	if records != "" {
		b = AppendMeta(b, 'x', records)
	}
	return Pad(append(h.Append(b), content...)), nil
}

package mtree

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Types of objects, the values of the keyword type.
const (
	File   = "file"
	Dir    = "dir"
	Link   = "link"
	Char   = "char"
	Block  = "block"
	Fifo   = "fifo"
	Socket = "socket"
)

// Entry is one object of a tree.
type Entry struct {
	Name string // clean and relative; "." is the root
	Type string
	Mode uint32 // permission, setuid, setgid and sticky bits

	UID, GID uint32
	Nlink    uint64
	Size     int64
	Seconds  int64 // modification time

	Link   string            // target of a symbolic link
	SHA256 [32]byte          // of a file's content
	Xattrs map[string]string // of files and directories alone

	// Inode and Changed are the object's number and the time when it last changed in any way; zero if unknown. Major and
	// Minor say which device a device is: only an entry with an inode has them.
	Inode        uint64
	Changed      time.Time
	Major, Minor uint32

	// Keys says which of the fields a manifest that was read gives; a Writer writes those that the type has.
	Keys Keys
}

// Keys is a set of keywords.
type Keys uint16

// The keywords.
const (
	KeyType Keys = 1 << iota
	KeyMode
	KeyUID
	KeyGID
	KeyNlink
	KeySize
	KeyTime
	KeyLink
	KeySHA256
	KeyXattr
	KeyDevice // of our comment
)

// Has reports whether all keywords of k are in the set.
func (s Keys) Has(k Keys) bool { return s&k == k }

// The comments that are ours. The first comes after the last entry: no object's change time that is later can be trusted.
// The other stands before its entry.
const (
	endMark    = "#. end "
	objectMark = "#. "
)

// Writer writes a manifest.
type Writer struct {
	w    *bufio.Writer
	line []byte
	open []string // directories that the current one is in, outermost first
	set  values
	any  bool
}

// values are those that /set gives to the entries after it.
type values struct {
	uid, gid uint32
}

// NewWriter returns a Writer to w. Nothing is complete before Close.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, 64<<10)}
}

// Write writes one entry. The root comes first; what is in a directory comes after it, and before anything else that its
// parent holds: first all that are no directories, then the directories, names ascending in both.
func (w *Writer) Write(e *Entry) error {
	if err := w.enter(e); err != nil {
		return err
	}
	b := w.line[:0]
	if e.Type == Dir {
		b = w.heading(b, e)
	}
	if e.Inode != 0 {
		b = append(b, objectMark...)
		b = strconv.AppendUint(b, e.Inode, 36)
		b = append(b, ' ')
		b = strconv.AppendInt(b, e.Changed.UnixNano(), 36)
		if e.Type == Char || e.Type == Block {
			b = fmt.Appendf(b, " %d:%d", e.Major, e.Minor)
		}
		b = append(b, '\n')
	}
	if e.Type != Dir {
		b = append(b, "    "...)
	}
	b = appendVis(b, path.Base(e.Name))
	b = w.appendKeys(b, e)
	b = append(b, '\n')
	w.line = b
	_, err := w.w.Write(b)
	return err
}

// enter leaves the directories that the entry is not in.
func (w *Writer) enter(e *Entry) error {
	if !w.any {
		if e.Name != "." || e.Type != Dir {
			return fmt.Errorf("write manifest: %q comes before the root", e.Name)
		}
		w.any = true
		w.open = append(w.open, ".")
		return nil
	}
	parent := path.Dir(e.Name)
	for len(w.open) > 0 && w.open[len(w.open)-1] != parent {
		if err := w.leave(); err != nil {
			return err
		}
	}
	if len(w.open) == 0 {
		return fmt.Errorf("write manifest: %q comes without its directory", e.Name)
	}
	if e.Type == Dir {
		w.open = append(w.open, e.Name)
	}
	return nil
}

func (w *Writer) leave() error {
	w.open = w.open[:len(w.open)-1]
	_, err := w.w.WriteString("..\n")
	return err
}

// heading is what comes before a directory.
func (w *Writer) heading(b []byte, e *Entry) []byte {
	first := e.Name == "."
	b = append(b, "\n# "...)
	b = append(appendVis(b, e.Name), '\n')
	if now := (values{e.UID, e.GID}); first || now != w.set {
		w.set = now
		b = append(b, "/set type=file nlink=1 mode=0664 uid="...)
		b = strconv.AppendUint(b, uint64(e.UID), 10)
		b = append(b, " gid="...)
		b = strconv.AppendUint(b, uint64(e.GID), 10)
		b = append(b, '\n')
	}
	return b
}

// appendKeys appends what differs from what /set says.
func (w *Writer) appendKeys(b []byte, e *Entry) []byte {
	b = strconv.AppendInt(append(b, " size="...), e.Size, 10)
	if e.Type != File {
		b = append(append(b, " type="...), e.Type...)
	}
	if e.UID != w.set.uid {
		b = strconv.AppendUint(append(b, " uid="...), uint64(e.UID), 10)
	}
	if e.GID != w.set.gid {
		b = strconv.AppendUint(append(b, " gid="...), uint64(e.GID), 10)
	}
	if e.Mode != 0o664 {
		b = append(b, " mode="...)
		if e.Mode != 0 {
			b = append(b, '0')
		}
		b = strconv.AppendUint(b, uint64(e.Mode), 8)
	}
	if e.Type == Link {
		b = appendVis(append(b, " link="...), e.Link)
	}
	if e.Nlink != 1 {
		b = strconv.AppendUint(append(b, " nlink="...), e.Nlink, 10)
	}
	b = strconv.AppendInt(append(b, " tar_time="...), e.Seconds, 10)
	b = append(b, ".000000000"...)
	if e.Type == File {
		b = hex.AppendEncode(append(b, " sha256digest="...), e.SHA256[:])
	}
	if len(e.Xattrs) > 0 && (e.Type == File || e.Type == Dir) {
		for _, attr := range slices.Sorted(maps.Keys(e.Xattrs)) {
			b = append(appendVis(append(b, " xattr."...), attr), '=')
			b = base64.StdEncoding.AppendEncode(b, []byte(e.Xattrs[attr]))
		}
	}
	return b
}

// Close writes what is left. done is when the last entry's object was looked at: a change later than shortly before it may
// have the same time as one that came before, and shows in nothing then. The zero time leaves it out.
func (w *Writer) Close(done time.Time) error {
	for len(w.open) > 0 {
		if err := w.leave(); err != nil {
			return err
		}
	}
	if !done.IsZero() {
		if _, err := fmt.Fprintf(w.w, "%s%s\n", endMark, strconv.FormatInt(done.UnixNano(), 36)); err != nil {
			return err
		}
	}
	return w.w.Flush()
}

// appendVis encodes a name as vis(3) does with VIS_WHITE, VIS_OCTAL and VIS_GLOB, and bytes beyond ASCII in octal, too.
func appendVis(b []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '\\':
			b = append(b, '\\', '\\')
		case c > ' ' && c < 0x7f && !strings.ContainsRune("*?[#", rune(c)):
			b = append(b, c)
		default:
			b = append(b, '\\', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
		}
	}
	return b
}

package rootfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/s2"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// lostTarget is the target of a symbolic link whose true one no layer tells, or Linux cannot express.
const lostTarget = ".target-unknown"

// ntSource turns the entries of a Windows layer into those of a tree on a Linux disk, and keeps the layer's stream.
type ntSource struct {
	r       ntInput
	dir     string
	root    *inroot.Root
	parents []*inroot.Root
	dirs    []string // of the parents, for errors
	names   *ntNames
	attr    string
	whole   bool
	plain   bool // without Windows' metadata
	stats   NTStats

	file     *os.File
	packed   *packedHeaders
	skeleton *layer.Writer

	brought  map[string]layer.Kind // by name as spelled
	within   string                // the last directory that was found to be there, "" if it may be gone
	replaced ntReplaced
	aside    *aside // what of the layer is not in the tree yet

	links   []*layer.Entry          // of which the target was not there when they came
	waiting map[string]*layer.Entry // those of them that nothing has taken the name of since
	streams ntStreams
	spilled map[[sha256.Size]byte]struct{}
	tails   map[string][]byte // backup streams of a descriptor alone, by the descriptor: most files share a few
	value   []byte            // for an attribute
}

func newNTSource(dir string, root *inroot.Root, parents ntParents, r ntInput, opts NTOptions) (*ntSource, error) {
	s := &ntSource{
		r: r, dir: dir, root: root, parents: parents.roots, dirs: parents.dirs, names: newNTNames(parents.roots),
		attr: ntAttrName(opts.UserXattr), whole: opts.whole, plain: opts.plain,
		spilled: make(map[[sha256.Size]byte]struct{}), brought: make(map[string]layer.Kind), waiting: make(map[string]*layer.Entry), aside: newAside(),
	}
	s.streams.dir = filepath.Join(dir, ntSpill)
	if err := os.Mkdir(s.streams.dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if s.file, err = os.OpenFile(filepath.Join(dir, ntEntries), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	s.packed = &packedHeaders{w: s2.NewWriter(s.file)}
	s.skeleton = layer.NewWriter(s.packed)
	return s, nil
}

// packedHeaders compresses and counts. S2 is several times as fast as zstd, which would take longer than parsing the layer.
type packedHeaders struct {
	w *s2.Writer // not embedded: it has more ways to write
	n int64
}

func (p *packedHeaders) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.n += int64(n)
	return n, err
}

func (p *packedHeaders) Close() error { return p.w.Close() }

func (s *ntSource) Read(p []byte) (int, error)               { return s.r.Read(p) }
func (s *ntSource) WriteDataAt(w io.WriterAt) (int64, error) { return s.r.WriteDataAt(w) }

// Next returns the next entry as the disk gets it.
func (s *ntSource) Next() (*layer.Entry, error) {
	for {
		e, err := s.r.Next()
		if err == io.EOF {
			return s.lateLink()
		}
		if err != nil {
			return nil, err
		}
		made, err := s.next(e)
		if err != nil {
			return nil, entryError(e.Name, err)
		}
		if made != nil {
			return made, nil
		}
	}
}

func (s *ntSource) next(e *layer.Entry) (*layer.Entry, error) {
	if e.NT == nil {
		return nil, fmt.Errorf("it is read as one of another system's layers: %w", errdefs.ErrInvalidArgument)
	}
	s.stats.Entries++
	told := e
	if s.whole {
		var err error
		if told, err = tellable(e, s.spill); err != nil {
			return nil, err
		}
	}
	if e.Kind == layer.Stream {
		return nil, s.stream(e, told)
	}
	if err := s.skeleton.WriteHeader(told); err != nil {
		return nil, err
	}
	return s.onDisk(e)
}

// stream keeps an alternate stream, which told is in the layer's own stream, for which the tree has no place but in the metadata of what it belongs to.
func (s *ntSource) stream(e, told *layer.Entry) error {
	s.stats.Streams++
	owner, err := s.names.spell(e.Name)
	if err != nil {
		return err
	}
	if !s.hasOwnMeta(owner) {
		return s.skeleton.Write(told, s.r)
	}
	return s.streams.add(owner, ntfs.Stream{Name: e.Stream, Size: e.Size}, s.r, func(r io.Reader) error { return s.skeleton.Write(told, r) })
}

// hasOwnMeta says whether metadata can be added to an object: not to another name of a file, which may be a parent's, and not
// to what cannot have any.
func (s *ntSource) hasOwnMeta(name string) bool {
	switch s.brought[name] {
	case layer.Hardlink:
		return false
	case layer.Symlink:
		return s.attr != ntUserXattr && !s.plain
	}
	return !s.plain
}

// onDisk returns the entry for the tree, or nil if it waits for the end.
func (s *ntSource) onDisk(e *layer.Entry) (*layer.Entry, error) {
	made := *e
	made.Forget()
	var err error
	if made.Name, err = s.names.spell(e.Name); err != nil {
		return nil, err
	}
	if err := s.note(&made); err != nil {
		return nil, err
	}
	made.UID, made.GID, made.Xattrs = 0, 0, nil
	switch e.Kind {
	case layer.Whiteout, layer.Opaque:
		return &made, nil
	case layer.Hardlink:
		return s.hardlink(&made)
	case layer.Symlink:
		made.Link = linuxTarget(made.Name, linkTarget(e))
		if s.attr == ntUserXattr {
			return &made, nil // links cannot have it
		}
	case layer.Dir:
		made.Mode = 0o755
		if e.Implied {
			return &made, s.inherit(&made)
		}
	default:
		if made.Mode = 0o644; e.NT.Attributes&ntfs.AttrReadonly != 0 {
			made.Mode = 0o444
		}
	}
	return &made, s.describe(&made)
}

// note remembers a name. The content of what had it before, and is not in the tree any more, is kept.
func (s *ntSource) note(e *layer.Entry) error {
	if e.Kind == layer.Whiteout || e.Kind == layer.Opaque {
		return nil
	}
	if parent, _ := cut(e.Name); parent != "." && parent != s.within {
		if s.brought[parent] != layer.Dir {
			return fmt.Errorf("the layer has replaced directory %q: %w", parent, errdefs.ErrInvalidArgument)
		}
		s.within = parent
	}
	before, ok := s.brought[e.Name]
	if ok {
		s.within = ""
		delete(s.waiting, e.Name)
	}
	if ok && (before != layer.Dir || e.Kind != layer.Dir) {
		if there, err := s.aside.done(); err != nil || !there {
			return err
		}
		if err := s.keepReplaced(e.Name, before); err != nil {
			return err
		}
	}
	s.brought[e.Name] = e.Kind
	return nil
}

// describe puts the metadata into an attribute.
func (s *ntSource) describe(e *layer.Entry) error {
	if s.plain {
		e.NT = nil
		return nil
	}
	var err error
	if tail := s.tail(e.NT); tail != nil {
		s.value, err = appendNTAttr(s.value[:0], e, 0, tail)
	} else {
		s.value, err = appendNTMeta(s.value[:0], e, s.spill)
	}
	if err == nil {
		e.Xattrs = map[string]string{s.attr: string(s.value)}
		e.NT = nil // directories stay to the end, and their headers would with it
	}
	return err
}

// maxTails is how many descriptors' backup streams are kept.
const maxTails = 1024

// tail returns the backup stream of metadata that has a descriptor and nothing else for one, which is encoded once; nil for
// other metadata, and for what has to be spilled.
func (s *ntSource) tail(m *ntfs.Meta) []byte {
	d := m.SecurityDescriptor
	if len(d) == 0 || len(d) > ntInline || m.Reparse != nil || m.ObjectID != nil || len(m.EA)+len(m.Kept) > 0 {
		return nil
	}
	if tail, ok := s.tails[string(d)]; ok {
		return tail
	}
	var b bytes.Buffer
	if err := ntfs.NewBackupWriter(&b).WriteMeta(m); err != nil || b.Len() > ntInline {
		return nil
	}
	if s.tails == nil || len(s.tails) >= maxTails {
		s.tails = make(map[string][]byte)
	}
	s.tails[string(d)] = b.Bytes()
	return b.Bytes()
}

// spill stores metadata that is too big for an attribute.
func (s *ntSource) spill(b []byte) ([sha256.Size]byte, error) {
	sum := sha256.Sum256(b)
	if _, ok := s.spilled[sum]; ok {
		return sum, nil
	}
	s.spilled[sum] = struct{}{}
	return sum, os.WriteFile(filepath.Join(s.dir, ntSpill, hex.EncodeToString(sum[:])), b, 0o600)
}

// inherit gives an implied directory what the nearest parent has, which the layer does not mean to change.
func (s *ntSource) inherit(e *layer.Entry) error {
	from, st, err := s.parentWith(e.Name)
	if err != nil {
		return err
	}
	if from == nil || !st.IsDir() {
		return s.describe(e)
	}
	value, err := s.adopt(from, e.Name)
	if isMissing(err) {
		return s.describe(e) // no metadata, in a directory that was not imported
	}
	if err != nil {
		return err
	}
	e.ModTime, e.AccessTime, e.Xattrs = st.MTime, st.ATime, map[string]string{s.attr: value}
	return nil
}

// hardlink returns the entry if the layer has brought its target. Otherwise it waits: a target may come later, or be in a
// parent.
func (s *ntSource) hardlink(e *layer.Entry) (*layer.Entry, error) {
	var err error
	if e.Link, err = s.names.spell(e.Link); err != nil {
		return nil, err
	}
	if s.has(e.Link) {
		return e, nil
	}
	s.links = append(s.links, e)
	s.waiting[e.Name] = e
	return nil, nil
}

// has says whether the layer brought a file or link of that name, which does not wait itself.
func (s *ntSource) has(name string) bool {
	kind, ok := s.brought[name]
	_, waits := s.waiting[name]
	return ok && kind != layer.Dir && !waits
}

// lateLink makes the links that waited, to the nearest parent that has the target, or returns the next whose target is in
// the tree itself. Then it returns io.EOF.
func (s *ntSource) lateLink() (*layer.Entry, error) {
	for len(s.links) > 0 {
		e := s.links[0]
		s.links = s.links[1:]
		if s.waiting[e.Name] != e {
			continue
		}
		delete(s.waiting, e.Name)
		if s.has(e.Link) {
			return e, nil
		}
		if err := s.linkToParent(e); err != nil {
			return nil, entryError(e.Name, err)
		}
	}
	return nil, io.EOF
}

func (s *ntSource) linkToParent(e *layer.Entry) error {
	for _, root := range s.parents {
		there, err := isFile(root, e.Link)
		if err != nil {
			return err
		}
		if there {
			c := cloner{from: root, to: s.root, attr: s.attr}
			return c.link(e.Link, e.Name)
		}
	}
	return fmt.Errorf("find the hard link's target %q: %w", e.Link, fs.ErrNotExist)
}

// isFile reports whether there is a file or link of that name, which does not lead through links: below one in Files might
// be what is not the layer's, but the layer directory's own.
func isFile(root *inroot.Root, name string) (bool, error) {
	names := realNames{root: root, known: map[string]string{".": ".", "": "."}}
	parent, _ := cut(name)
	if found, err := names.of(parent); found != parent || err != nil {
		return false, nothingThere(err)
	}
	st, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && !st.IsWhiteout() && !st.IsDir(), err
}

func linkAcross(from *inroot.Root, target string, to *inroot.Root, name string) error {
	dir, last, err := from.OpenParent(target)
	if err != nil {
		return err
	}
	parent, base, err := to.OpenParent(name)
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	err = dir.Link(last, parent, base)
	return errors.Join(err, parent.Close(), dir.Close())
}

// end completes the layer's stream.
func (s *ntSource) end() error {
	trailer, err := s.r.Trailer()
	if err != nil {
		return err
	}
	if err := s.streams.end(s.root, s.attr); err != nil {
		return err
	}
	return s.skeleton.CloseWith(trailer)
}

// close closes the files, whole or not.
func (s *ntSource) close() error {
	return errors.Join(s.packed.Close(), s.file.Close(), s.streams.close(), s.aside.close())
}

// linkTarget returns the target as Windows has it: the reparse buffer is the truth.
func linkTarget(e *layer.Entry) string {
	if link, err := ntfs.ParseLink(e.NT.Reparse); err == nil && link.Target() != "" {
		return link.Target()
	}
	return e.Link
}

// linuxTarget returns the target of the symbolic link name, which is a path in a layer directory, for programs on Linux:
// drive C: is the part of the layer that the link lies in.
func linuxTarget(name, target string) string {
	target = strings.TrimPrefix(target, `\??\`)
	target = strings.TrimPrefix(target, `\\?\`)
	target = strings.ReplaceAll(target, `\`, "/")
	switch {
	case target == "" || strings.ContainsRune(target, 0) || strings.HasPrefix(target, "//"):
		return lostTarget
	case len(target) >= 2 && target[1] == ':':
		if !strings.EqualFold(target[:1], "c") {
			return lostTarget
		}
		target = "/" + target[2:]
	case target[0] != '/':
		return target
	}
	part, inside := layer.SplitPart(name)
	if part == layer.UtilityVMPart { // its drive C: is UtilityVM/Files
		_, inside, _ = strings.Cut(inside, "/")
	}
	up := strings.Repeat("../", strings.Count(inside, "/"))
	return path.Join(".", up+strings.TrimPrefix(path.Clean(target), "/"))
}

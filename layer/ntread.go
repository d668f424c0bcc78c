package layer

import (
	"archive/tar"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hostcompute/hcs/ntfs"
)

// ntReader is what a Reader of the NT encoding knows beyond others.
//
// The encoding is what Windows' exporter writes, as go-winio's package
// backuptar and the OCI image specification (layer.md, "Vendor extensions")
// tell it; docs/formats/windows-layer.md has it all.
type ntReader struct {
	strict  bool
	warn    func(Warning)
	name    string // of the entry at hand, for warnings
	limits  *Limits
	entries *int64   // of the Reader: what is made up counts, too
	records []record // of the entry at hand, in order

	tree        *ntTree
	descriptors map[string][]byte // by text; most files share a few
	interned    int               // bytes of text
	defaults    bool              // DefaultDescriptor was told

	at    time.Time // of the last entry
	queue []*slot   // what comes before held
	held  *slot
	ended bool
}

// ntSlot lets all that belongs to an entry be one allocation. What was made of
// its header is kept to compare: that is faster than to read it once more.
type ntSlot struct {
	slot
	meta, wasMeta ntfs.Meta
	was           Entry
}

func newNTReader(o ReadOptions) *ntReader {
	return &ntReader{
		strict: o.Strict, warn: o.Warn, at: time.Unix(0, 0).UTC(),
		tree: newNTTree(), descriptors: make(map[string][]byte),
	}
}

// looksNT says whether the first entry of a layer is one of Windows.
func looksNT(hdr *tar.Header, records []record) bool {
	for _, r := range records {
		if strings.HasPrefix(r.key, ntPrefix) {
			return true
		}
	}
	name, err := anything.cleanName(hdr.Name)
	part, _ := SplitPart(name)
	return err == nil && (part == HivesPart || part == UtilityVMPart)
}

// flaw takes notice of something malformed: unless the reader is strict, the
// caller mends it.
func (n *ntReader) flaw(p Problem, format string, args ...any) error {
	if n.strict {
		return invalid("%s: "+format, append([]any{p}, args...)...)
	}
	if n.warn != nil {
		n.warn(Warning{Name: n.name, Problem: p, Detail: fmt.Sprintf(format, args...)})
	}
	return nil
}

// entryNT is Reader.entry for the NT encoding.
func (r *Reader) entryNT(hdr *tar.Header, block, after []byte) (*slot, error) {
	lay, err := layoutOf(hdr, block, after)
	if err != nil {
		return nil, err
	}
	r.ghost, r.left = lay.stored, lay.stored
	n := r.nt
	n.name, n.limits, n.entries, n.records = hdr.Name, &r.limits, &r.entries, r.records
	s := new(ntSlot)
	s.s.stored = lay.stored
	e := &s.e
	e.source, e.NT = &s.s, &s.meta
	what, err := n.identify(e, hdr)
	if err != nil {
		return nil, err
	}
	if what == forgotten {
		return nil, r.count(lay.stored)
	}
	if e.hasContent() {
		e.Size = hdr.Size
		if lay.sparse {
			e.Data = lay.data
		}
	}
	if err := n.describe(e, hdr, block); err != nil {
		return nil, err
	}
	if err := r.count(max(e.Size, lay.stored)); err != nil {
		return nil, err
	}
	if err := n.place(e); err != nil {
		return nil, err
	}
	s.remember()
	return &s.slot, nil
}

// remember keeps what was made of a header.
func (s *ntSlot) remember() {
	s.was, s.wasMeta = s.e, s.meta
	w := &s.was
	w.NT = &s.wasMeta
	if len(w.Xattrs) > 0 || len(w.Records) > 0 {
		w.Xattrs, w.Records = maps.Clone(w.Xattrs), maps.Clone(w.Records)
	}
	w.Data = slices.Clone(w.Data)
	w.NT.EA = slices.Clone(w.NT.EA)
	s.s.was = w
}

// identify sets an entry's kind, name, stream and link, and says what its name
// means.
func (n *ntReader) identify(e *Entry, hdr *tar.Header) (meaning, error) {
	path, stream, isStream, err := splitStream(strings.TrimRight(hdr.Name, "/"))
	if err != nil {
		return 0, err
	}
	name, what, err := n.cleanName(path)
	if err != nil || what == forgotten {
		return what, err
	}
	if name == "." && what == ordinary && !isStream && hdr.Typeflag == tar.TypeDir {
		return forgotten, n.flaw(NameForm, "an entry for the layer's root is skipped")
	}
	if name == "." {
		return 0, invalid("name is outside of Files, Hives and UtilityVM")
	}
	if err := checkNTName(name); err != nil {
		return 0, err
	}
	e.Name = name
	switch {
	case isStream && (what != ordinary || hdr.Typeflag != tar.TypeReg):
		return 0, invalid("alternate stream %q is not told by a file's entry", stream)
	case isStream:
		e.Kind, e.Stream = Stream, stream
		return what, nil
	case what == whiteout:
		e.Kind = Whiteout
		return what, checkPlace("whiteout", name)
	case what == opaque:
		e.Kind = Opaque
		if err := checkPlace("opaque directory", name+"/"); err != nil {
			return 0, err
		}
		return what, n.flaw(OpaqueMarker, "Windows knows none, and keeps what lower layers hold")
	}
	if e.Kind, err = kindOf(hdr.Typeflag); err != nil {
		return 0, err
	}
	if err := n.checkKind(e); err != nil {
		return 0, err
	}
	return what, n.link(e, hdr.Linkname)
}

// cleanName cleans and judges a name without its stream.
func (n *ntReader) cleanName(name string) (string, meaning, error) {
	if strings.IndexByte(name, '\\') >= 0 {
		if err := n.flaw(NameForm, "backslashes are taken for slashes"); err != nil {
			return "", 0, err
		}
		name = strings.ReplaceAll(name, `\`, "/")
	}
	name, err := n.limits.cleanName(name)
	if err != nil {
		return "", 0, err
	}
	what, name, err := judge(name)
	if err != nil || what == forgotten {
		return "", what, err
	}
	proper := partCase(name)
	if proper != name {
		err = n.flaw(NameForm, "it is taken for %q", proper)
	}
	return proper, what, err
}

// partCase gives a name's part the case that it has everywhere else.
func partCase(name string) string {
	if strings.HasPrefix(name, "Files/") {
		return name
	}
	for _, dir := range [...]string{"Files", "Hives", "UtilityVM", utilityFiles} {
		n := len(dir)
		if len(name) == n || len(name) > n && name[n] == '/' {
			if name[:n] != dir && strings.EqualFold(name[:n], dir) {
				name = dir + name[n:]
			}
		}
	}
	return name
}

// checkKind refuses what Windows layers cannot hold.
func (n *ntReader) checkKind(e *Entry) error {
	if err := checkNTKind(e); err != nil {
		return err
	}
	if part, hive := SplitPart(e.Name); part == HivesPart && hive != "." && !knownHive(hive) {
		return n.flaw(UnknownHive, "it is kept as it is")
	}
	return nil
}

func checkNTKind(e *Entry) error {
	part, rest := SplitPart(e.Name)
	switch {
	case e.Kind != File && e.Kind != Dir && e.Kind != Symlink && e.Kind != Hardlink:
		return invalid("a Windows layer holds no %s", e.Kind)
	case (rest == "." || e.Name == utilityFiles) && e.Kind != Dir:
		return invalid("%s is a %s", e.Name, e.Kind)
	case part == HivesPart && rest != "." && e.Kind != File:
		return invalid("Hives holds a %s", e.Kind)
	}
	return nil
}

// link sets and judges a link's target.
func (n *ntReader) link(e *Entry, target string) error {
	switch e.Kind {
	case Symlink:
		return n.symlink(e, target)
	case Hardlink:
		return n.hardlink(e, target)
	}
	return nil
}

func (n *ntReader) symlink(e *Entry, target string) error {
	if err := n.limits.ntTarget(target); err != nil {
		return err
	}
	e.Link = target
	if target == "" {
		return n.flaw(LostTarget, "the target stays empty")
	}
	rest, prefixed := strings.CutPrefix(target, "Files/")
	if !prefixed || n.has(mountPoint) {
		return nil
	}
	e.Link = n.unprefixed(e.Name, rest)
	return n.flaw(SymlinkTarget, "%q is taken for %q", target, e.Link)
}

// ntTarget refuses what no reparse point's target can be.
func (l *Limits) ntTarget(target string) error {
	if strings.IndexByte(target, 0) >= 0 {
		return invalid("symlink target contains a NUL byte")
	}
	if len(target) > l.NameBytes {
		return fmt.Errorf("symlink target: %w", exceeded("NameBytes", l.NameBytes))
	}
	if !ntfs.ValidWTF8(target) {
		return invalid("symlink target %q is not UTF-8", target)
	}
	return nil
}

// unprefixed undoes what BuildKit and Buildah did to a symlink's target. The
// one puts "Files/" before it, so that an absolute target still has its
// slash. The other cleans the path, so that it does not say any more whether
// it was absolute: then it was if what it names is there.
func (n *ntReader) unprefixed(name, target string) string {
	if !strings.HasPrefix(target, "/") {
		_, beside := n.tree.find(name[:strings.LastIndexByte(name, '/')+1] + target)
		if _, there := n.tree.find("Files/" + target); there && !beside {
			target = "/" + target
		}
	}
	return strings.ReplaceAll(target, "/", `\`)
}

func (n *ntReader) hardlink(e *Entry, target string) error {
	name, what, err := n.cleanTarget(target)
	switch {
	case err != nil:
		return fmt.Errorf("hard link target %q: %w", target, err)
	case what != ordinary:
		return invalid("hard link target %q is a whiteout name", target)
	case name == e.Name:
		return invalid("hard link to itself")
	}
	e.Link = name
	if err := checkPlace("hard link", e.Name); err != nil {
		return err
	}
	return checkPlace("hard link target", name)
}

func (n *ntReader) cleanTarget(target string) (string, meaning, error) {
	name, err := n.limits.cleanName(strings.ReplaceAll(target, `\`, "/"))
	if err != nil {
		return "", 0, err
	}
	what, name, err := judge(name)
	if err != nil || what != ordinary {
		return "", what, err
	}
	name = partCase(name)
	if part, _ := SplitPart(name); !slices.Contains(parts[:], part) {
		name = string(FilesPart) + "/" + name
	}
	if err := checkNTName(name); err != nil {
		return "", 0, err
	}
	if strings.Trim(target, "/") != name {
		err = n.flaw(HardLinkTarget, "%q is taken for %q", target, name)
	}
	return name, what, err
}

// place finds out what has to come before an entry.
func (n *ntReader) place(e *Entry) error {
	switch e.Kind {
	case Whiteout, Opaque:
		return nil
	case Stream:
		return n.tree.addStream(e, n.flaw)
	}
	n.at = e.ModTime
	err := n.tree.parents(e.Name, func(dir string) error {
		if *n.entries++; *n.entries > n.limits.Entries {
			return exceeded("Entries", n.limits.Entries)
		}
		n.queue = append(n.queue, impliedDir(dir, e.ModTime))
		return n.flaw(MissingParent, "an entry for directory %q is made up", dir)
	}, n.flaw)
	if err != nil {
		return err
	}
	return n.tree.add(e, n.flaw)
}

// impliedDir makes up the entry of a directory.
func impliedDir(name string, at time.Time) *slot {
	s := new(ntSlot)
	s.e = Entry{Name: name, Kind: Dir, ModTime: at, AccessTime: at, ChangeTime: at, Implied: true, source: &s.s, NT: &s.meta}
	s.meta = defaultDirMeta(at)
	s.s.raw = []byte{}
	s.remember()
	return &s.slot
}

// finish makes up at the end of a layer what every layer has.
func (n *ntReader) finish() error {
	n.ended = true
	for _, p := range []Part{FilesPart, HivesPart} {
		if _, ok := n.tree.find(string(p)); ok || p == HivesPart && n.isBase() {
			continue
		}
		n.queue = append(n.queue, impliedDir(string(p), n.at))
		problem := MissingParent
		if p == HivesPart {
			problem = MissingHives
		}
		n.name = string(p)
		if err := n.flaw(problem, "an entry for directory %q is made up", p); err != nil {
			return err
		}
	}
	return nil
}

// isBase says whether the layer looks like a base layer, which has whole
// hives among its files and therefore none in Hives.
func (n *ntReader) isBase() bool {
	for _, name := range []string{"UtilityVM", "Files/Windows/System32/config/SYSTEM"} {
		if _, ok := n.tree.find(name); ok {
			return true
		}
	}
	return false
}

// line puts an entry behind what was made up for it, and returns the first.
func (n *ntReader) line(s *slot) *slot {
	if len(n.queue) == 0 {
		return s
	}
	n.held = s
	return n.next()
}

// next returns what is in line, or nil.
func (n *ntReader) next() *slot {
	if len(n.queue) > 0 {
		s := n.queue[0]
		n.queue = n.queue[1:]
		return s
	}
	s := n.held
	n.held = nil
	return s
}

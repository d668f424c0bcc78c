package rootfs

import (
	"container/list"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// objectID tells the objects of a tree apart.
type objectID struct{ dev, ino uint64 }

func idOf(st *sys.Stat) objectID { return objectID{st.Dev, st.Ino} }

// dirHandle is an open directory, and the name it was found by.
type dirHandle struct {
	*inroot.Dir
	id   objectID
	name string
	held atomic.Int32 // by writers
}

func newDirHandle(d *inroot.Dir, name string) *dirHandle {
	return &dirHandle{Dir: d, id: idOf(d.Stat()), name: name}
}

// hold keeps the directory open for one more user, until that releases it.
func (h *dirHandle) hold() { h.held.Add(1) }

// release is for each user, and for the one who opened it.
func (h *dirHandle) release() error {
	if h.held.Add(-1) >= 0 {
		return nil
	}
	return h.Close()
}

// maxDirs is how many directories stay open. The names of a layer mostly come in the order of a walk, so that the
// ancestors of the current one are all that counts.
const maxDirs = 128

// dirCache remembers which directory a name leads to. What it forgets is closed with the next entry only, because the
// current one may be using it.
type dirCache struct {
	root    *dirHandle
	byName  map[string]*list.Element
	recent  *list.List // of *dirHandle, most recently used first
	leaving []*dirHandle
}

func newDirCache(root *inroot.Dir) *dirCache {
	return &dirCache{
		root:   newDirHandle(root, "."),
		byName: make(map[string]*list.Element),
		recent: list.New(),
	}
}

func (c *dirCache) get(name string) *dirHandle {
	if name == "." {
		return c.root
	}
	element := c.byName[name]
	if element == nil {
		return nil
	}
	c.recent.MoveToFront(element)
	return element.Value.(*dirHandle)
}

func (c *dirCache) put(h *dirHandle) {
	if old := c.byName[h.name]; old != nil {
		c.forget(old)
	}
	c.byName[h.name] = c.recent.PushFront(h)
	if c.recent.Len() > maxDirs {
		c.forget(c.recent.Back())
	}
}

func (c *dirCache) forget(element *list.Element) {
	h := c.recent.Remove(element).(*dirHandle)
	delete(c.byName, h.name)
	c.leaving = append(c.leaving, h)
}

// rename notes that a directory is found by another name.
func (c *dirCache) rename(h *dirHandle, name string) {
	if element := c.byName[h.name]; element != nil && element.Value == h {
		c.forget(element)
	}
	h.name = name
}

func (c *dirCache) forgetAll() {
	for c.recent.Len() > 0 {
		c.forget(c.recent.Back())
	}
}

// sweep closes what was forgotten. No handle from before may be in use.
func (c *dirCache) sweep() error {
	var failed []error
	for _, h := range c.leaving {
		failed = append(failed, h.release())
	}
	c.leaving = c.leaving[:0]
	return errors.Join(failed...)
}

func (c *dirCache) close() error {
	c.forgetAll()
	return errors.Join(c.sweep(), c.root.release())
}

// dirMeta is what a directory is to look like in the end. Until then those that the layer brings have mode 0700: a
// directory's own mode may forbid filling it, its group or default ACL would be inherited, and filling it changes its times.
type dirMeta struct {
	name         string
	entry        *layer.Entry // nil: only the times are set
	implied      bool         // the layer needs the directory and does not mention it
	merge        bool         // the directory was there before its entry, and has attributes of its own
	atime, mtime time.Time
}

// impliedMode is the mode of directories that the layer needs but does not mention.
const impliedMode = 0o755

// parent opens the directory of an entry, making it if it is missing, and returns the entry's last component.
func (a *applier) parent(name string) (*dirHandle, string, error) {
	parent, last := cut(name)
	h, err := a.directory(parent)
	return h, last, err
}

// directory opens a directory of the tree by its clean name, through symbolic links, and makes it if it is missing.
func (a *applier) directory(name string) (*dirHandle, error) {
	h, err := a.lookup(name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, sys.ErrNotDir) {
		return h, err
	}
	parent, last := cut(name)
	above, err := a.directory(parent)
	if err != nil {
		return nil, err
	}
	st, err := above.Lstat(last)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case st.IsSymlink():
		if err := a.keepOrder(); err != nil {
			return nil, err
		}
		return a.behindLink(name)
	}
	h, fresh, err := a.makeDir(above, last, name)
	if err == nil && fresh {
		a.describeLater(h.id, a.impliedMeta(h.name))
		err = a.format.made(above, last)
	}
	return h, err
}

// behindLink makes the directory that a dangling symbolic link leads to.
func (a *applier) behindLink(name string) (*dirHandle, error) {
	if err := a.makeTarget(name, 1); err != nil {
		return nil, err
	}
	return a.lookup(name)
}

// maxLinks is how many symbolic links the kernel follows.
const maxLinks = 40

// makeTarget makes the directory that the dangling link called name leads to; it is the given one in a row.
func (a *applier) makeTarget(name string, links int) error {
	if links > maxLinks {
		return sys.ErrTooManyLinks
	}
	target, err := a.root.Readlink(name)
	if err != nil {
		return err
	}
	at := "."
	if !path.IsAbs(target) {
		at, _ = cut(name)
	}
	for part := range strings.SplitSeq(target, "/") {
		if part == "" || part == "." {
			continue
		}
		next := at + "/" + part // not cleaned: what .. is depends on links
		if err := a.makePart(at, part, next, links); err != nil {
			return err
		}
		at = next
	}
	return nil
}

// makePart makes the directory part in the directory at, also known as next, unless it is there.
func (a *applier) makePart(at, part, next string, links int) error {
	st, err := a.root.Stat(next)
	switch {
	case err == nil && !st.IsDir():
		return fmt.Errorf("%q is in the way: %w", next, sys.ErrNotDir)
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if st, err = a.root.Lstat(next); err == nil && st.IsSymlink() {
		return a.makeTarget(next, links+1)
	}
	d, err := a.root.OpenDir(at)
	if err != nil {
		return err
	}
	a.noteExisting(newDirHandle(d, at))
	if err = d.Mkdir(part, 0o700); err == nil {
		err = inDir(d, part, func(sub *inroot.Dir) error {
			id := idOf(sub.Stat())
			a.format.fresh(id)
			a.describeLater(id, a.impliedMeta(next))
			return nil
		})
	}
	return errors.Join(err, d.Close())
}

func (a *applier) impliedMeta(name string) *dirMeta {
	return &dirMeta{name: name, entry: a.ids.impliedDir(name), implied: true}
}

// existing opens the directory that holds name, and returns name's last component.
func (a *applier) existing(name string) (*dirHandle, string, error) {
	if name == "." {
		return nil, "", fmt.Errorf("it is the root: %w", errdefs.ErrInvalidArgument)
	}
	parent, last := cut(name)
	h, err := a.lookup(parent)
	return h, last, err
}

// lookup opens a directory that is there, through symbolic links.
func (a *applier) lookup(name string) (*dirHandle, error) {
	if h := a.dirs.get(name); h != nil {
		return h, nil
	}
	d, err := a.root.OpenDir(name)
	if err != nil {
		return nil, err
	}
	h := newDirHandle(d, name)
	a.dirs.put(h)
	a.noteExisting(h)
	return h, nil
}

// noteExisting keeps the times of a directory that was there before the layer.
func (a *applier) noteExisting(h *dirHandle) {
	if _, known := a.meta[h.id]; !known && !a.opts.touch {
		st := h.Stat()
		a.describeLater(h.id, &dirMeta{name: h.name, atime: st.ATime, mtime: st.MTime})
	}
}

// dir applies a directory's entry.
func (a *applier) dir(e *layer.Entry) error {
	if e.Name == "." {
		a.stats.Root = true
		a.describeLater(a.dirs.root.id, &dirMeta{name: ".", entry: e, merge: true})
		return nil
	}
	parent, last, err := a.parent(e.Name)
	if err != nil {
		return err
	}
	if a.opts.KeepDirlinks {
		if kept, err := a.isDirlink(parent, last, e.Name); kept || err != nil {
			return err
		}
	}
	h, fresh, err := a.makeDir(parent, last, e.Name)
	if err != nil {
		return err
	}
	a.describeLater(h.id, &dirMeta{name: h.name, entry: e, merge: !fresh})
	return a.format.made(parent, last)
}

// isDirlink reports whether last, also known as name, is a symbolic link to a directory.
func (a *applier) isDirlink(parent *dirHandle, last, name string) (bool, error) {
	st, err := parent.Lstat(last)
	if err != nil || !st.IsSymlink() {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return false, err
	}
	_, err = a.lookup(name)
	return err == nil, nothingThere(err)
}

// makeDir makes last, also known as name, a directory: the one that is there, or a fresh one in the place of anything else,
// which has a name of its own as the old one may lead through what was there.
func (a *applier) makeDir(parent *dirHandle, last, name string) (h *dirHandle, fresh bool, err error) {
	if err = a.claim(parent, last); err != nil {
		return nil, false, err
	}
	err = parent.Mkdir(last, 0o700)
	fresh = err == nil
	replaced := false
	if errors.Is(err, fs.ErrExist) {
		if fresh, err = a.overlap(parent, last); fresh {
			replaced, name = true, path.Join(parent.name, last)
		}
	}
	if err != nil {
		return nil, false, err
	}
	d, err := parent.OpenDir(last)
	if err != nil {
		return nil, false, err
	}
	h = newDirHandle(d, name)
	a.dirs.put(h)
	if fresh {
		a.format.fresh(h.id)
	}
	if replaced {
		err = a.format.replacedByDir(h)
	}
	return h, fresh, err
}

// overlap deals with what is in a directory's place. Fresh says that there is another one now, and the parent has the name
// that leads to it without symbolic links.
func (a *applier) overlap(parent *dirHandle, last string) (fresh bool, err error) {
	st, err := parent.Lstat(last)
	if err != nil || st.IsDir() {
		return false, err
	}
	name, err := a.realName(parent.name)
	if err != nil {
		return false, err
	}
	if err := a.remove(parent, last); err != nil {
		return false, err
	}
	a.dirs.rename(parent, name)
	return true, parent.Mkdir(last, 0o700)
}

// finishDir gives a directory its metadata, if it is still the one that was meant.
func (a *applier) finishDir(id objectID, m *dirMeta) error {
	d, err := a.root.OpenDir(m.name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, sys.ErrNotDir) || errors.Is(err, sys.ErrTooManyLinks) {
		return nil // replaced by a later entry
	}
	if err != nil {
		return err
	}
	if idOf(d.Stat()) == id {
		err = a.owner.describeDir(d, m)
	}
	return errors.Join(err, d.Close())
}

// describeDir sets what differs, times last.
func (o *ownership) describeDir(d *inroot.Dir, m *dirMeta) error {
	self, st, e := d.Self(), d.Stat(), m.entry
	if e == nil {
		return self.SetTimes(m.atime, m.mtime)
	}
	if e.UID != st.UID || e.GID != st.GID {
		if err := o.chowned(e, self.Chown(e.UID, e.GID)); err != nil {
			return err
		}
	}
	if m.merge {
		if err := clearXattrs(self); err != nil {
			return err
		}
	}
	if err := o.setUserXattrs(e, self.SetXattr); err != nil {
		return err
	}
	if err := self.Chmod(e.Mode); err != nil {
		return err
	}
	if err := o.setXattrs(e, self.SetXattr); err != nil {
		return err
	}
	return self.SetTimes(times(e))
}

package rootfs

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// creation is an object to be made. Whoever makes it releases the directory.
type creation struct {
	dir   *openDir
	name  string
	entry *layer.Entry
	data  []byte

	// What the manifest will say, if there is one. Who makes the object fills it in; the table is not for several goroutines.
	recordID int32 // 0: there is none
	record   record
	xattrs   map[string]string
}

// create makes an object with its metadata. Owner, mode, attributes and times come in this order as each may change those
// before it.
func (f *flattener) create(c *creation) error {
	if c.entry.Kind != layer.File {
		return f.createNode(c)
	}
	file, err := c.dir.Create(c.name, f.owner.createMode(c.entry))
	if err != nil {
		return err
	}
	if len(c.data) > 0 {
		_, err = file.Write(c.data)
	}
	if c.recordID != 0 {
		c.record.sum = sha256.Sum256(c.data)
	}
	if err == nil {
		err = f.complete(c, file)
	}
	return errors.Join(err, file.Close())
}

// complete gives a file that is written its metadata.
func (f *flattener) complete(c *creation, file *inroot.File) error {
	var err error
	e := c.entry
	if f.owner.mustChown(e, c.dir.Dir) {
		err = f.owner.chowned(e, file.Chown(e.UID, e.GID))
	}
	if err == nil {
		err = f.owner.setUserXattrs(e, file.SetXattr)
	}
	if err == nil && f.owner.mustChmod(e) {
		err = file.Chmod(e.Mode)
	}
	if err == nil {
		err = f.owner.setXattrs(e, file.SetXattr)
	}
	if err == nil {
		err = file.SetTimes(times(e))
	}
	if err != nil || c.recordID == 0 {
		return err
	}
	st, err := file.Stat()
	if err != nil {
		return err
	}
	c.record.take(&st)
	// Setting an attribute may be left out or set another, and a policy of the host may add its own.
	if f.pool.strangeXattrs || len(e.Xattrs) > 0 {
		c.xattrs, err = f.owner.readXattrs(e, file)
	}
	return err
}

// keepRecord puts what the manifest will say of an object that is made into the table.
func (f *flattener) keepRecord(c *creation) {
	if c.recordID == 0 {
		return
	}
	c.record.more = f.nodes.keepAttrs(c.xattrs)
	if c.entry.Kind == layer.Symlink {
		c.record.more = f.nodes.keep(c.entry.Link)
	}
	*f.nodes.records.At(int(c.recordID)) = c.record
}

// createLarge writes a file while the layer is read.
func (f *flattener) createLarge(c *creation) error {
	file, err := c.dir.Create(c.name, f.owner.createMode(c.entry))
	if err != nil {
		return err
	}
	w := &summingFile{file: file}
	if c.recordID != 0 {
		w.hash = sha256.New()
	}
	_, err = f.r.WriteDataAt(w)
	if err == nil && c.entry.Data != nil {
		err = file.Truncate(c.entry.Size)
	}
	if c.recordID != 0 {
		w.hole(c.entry.Size)
		w.hash.Sum(c.record.sum[:0])
	}
	if err == nil {
		err = f.complete(c, file)
	}
	return errors.Join(err, file.Close())
}

// summingFile hashes what is written to it in ascending order, holes as zeros.
type summingFile struct {
	file *inroot.File
	hash hash.Hash // nil: it does not
	at   int64
}

var zeros [64 << 10]byte

func (w *summingFile) WriteAt(b []byte, offset int64) (int, error) {
	n, err := w.file.WriteAt(b, offset)
	if w.hash != nil && err == nil {
		w.hole(offset)
		w.hash.Write(b)
		w.at += int64(n)
	}
	return n, err
}

func (w *summingFile) hole(end int64) {
	for w.at < end {
		n := min(end-w.at, int64(len(zeros)))
		w.hash.Write(zeros[:n])
		w.at += n
	}
}

// createNode makes what needs no descriptor.
func (f *flattener) createNode(c *creation) error {
	err := f.makeNode(c)
	if errors.Is(err, errLeftOut) {
		return nil
	}
	e, d := c.entry, c.dir
	if err == nil && f.owner.mustChown(e, d.Dir) {
		err = f.owner.chowned(e, d.Chown(c.name, e.UID, e.GID))
	}
	set := func(attr, value string) error { return d.SetXattr(c.name, attr, value) }
	if err == nil {
		err = f.owner.setUserXattrs(e, set)
	}
	if err == nil && e.Kind != layer.Symlink {
		err = d.Chmod(c.name, e.Mode)
	}
	if err == nil {
		err = f.owner.setXattrs(e, set)
	}
	if err == nil {
		atime, mtime := times(e)
		err = d.SetTimes(c.name, atime, mtime)
	}
	if err != nil || c.recordID == 0 {
		return err
	}
	st, err := d.Lstat(c.name)
	c.record.take(&st)
	return err
}

var errLeftOut = errors.New("left out")

func (f *flattener) makeNode(c *creation) error {
	kind := uint32(sys.ModeBlock)
	switch c.entry.Kind {
	case layer.Symlink:
		return c.dir.Symlink(c.entry.Link, c.name)
	case layer.Fifo:
		return c.dir.Mknod(c.name, sys.ModeFIFO|0o600, 0, 0)
	case layer.CharDevice:
		kind = sys.ModeChar
	}
	err := c.dir.Mknod(c.name, kind|0o600, c.entry.Major, c.entry.Minor)
	if errors.Is(err, sys.ErrNotPermitted) {
		if f.owner.policy != KeepOwner {
			return errLeftOut
		}
		return deviceDenied(err)
	}
	return err
}

// creationBatch is some objects and the memory with their content.
type creationBatch struct {
	jobs   []creation
	data   []byte
	weight int64 // what the entries have that few have
}

// creators make objects, several at once, while the layer is read on. No two of them have the same name: who wants to
// replace one settles first.
type creators struct {
	make   func(*creation) error
	made   func(*creation) // is told of what was made, by the goroutine that adds
	queue  chan *creationBatch
	spare  chan *creationBatch
	next   *creationBatch // being filled
	group  sync.WaitGroup
	flying sync.WaitGroup
	failed atomic.Bool
	once   sync.Once
	err    error

	strangeXattrs bool // new objects have attributes that nobody gave them
}

func newCreators(n int, make func(*creation) error) *creators {
	if n <= 0 {
		n = min(runtime.GOMAXPROCS(0), 8)
	}
	p := newCreatorsOf(n)
	p.make = make
	for range n {
		p.group.Go(p.run)
	}
	return p
}

func newCreatorsOf(n int) *creators {
	p := &creators{queue: make(chan *creationBatch, n), spare: make(chan *creationBatch, 2*n+1)}
	for range cap(p.spare) {
		p.spare <- nil // made when first needed
	}
	return p
}

// add passes on an object with the content that it has.
func (p *creators) add(c creation) {
	b := p.room(0)
	b.add(c)
}

func (b *creationBatch) add(c creation) {
	b.jobs = append(b.jobs, c)
	b.weight += weight(c.entry)
}

// read passes on a file with content from the layer.
func (p *creators) read(c creation, r *layer.Reader) error {
	size := int(c.entry.Size)
	b := p.room(size)
	start := len(b.data)
	c.data = b.data[start : start+size : start+size]
	if _, err := io.ReadFull(r, c.data); err != nil {
		c.dir.release()
		return err
	}
	b.data = b.data[:start+size]
	b.add(c)
	return nil
}

// room returns a batch with space for one more.
func (p *creators) room(size int) *creationBatch {
	b := p.next
	if b != nil && (len(b.data)+size > batchSize || len(b.jobs) == batchJobs || b.weight > batchSize) {
		p.flush()
	}
	if p.next == nil {
		p.next = p.tell(<-p.spare)
	}
	return p.next
}

// tell says what of a batch was made, and makes it empty.
func (p *creators) tell(b *creationBatch) *creationBatch {
	if b == nil {
		return &creationBatch{jobs: make([]creation, 0, batchJobs), data: make([]byte, 0, batchSize)}
	}
	for i := range b.jobs {
		p.made(&b.jobs[i])
	}
	clear(b.jobs)
	b.jobs, b.data, b.weight = b.jobs[:0], b.data[:0], 0
	return b
}

// tellAll is for when no batch is in flight.
func (p *creators) tellAll() {
	for range cap(p.spare) {
		b := <-p.spare
		if b != nil {
			p.tell(b)
		}
		p.spare <- b
	}
}

func (p *creators) flush() {
	if p.next != nil {
		p.flying.Add(1)
		p.queue <- p.next
		p.next = nil
	}
}

// settle returns when all objects are made.
func (p *creators) settle() error {
	p.flush()
	p.flying.Wait()
	p.tellAll()
	if p.failed.Load() {
		return errStopped
	}
	return nil
}

// close waits for all objects and returns the first error there was.
func (p *creators) close() error {
	p.flush()
	close(p.queue)
	p.group.Wait()
	p.tellAll()
	return p.err
}

func (p *creators) run() {
	for b := range p.queue {
		for i := range b.jobs {
			p.do(&b.jobs[i])
		}
		p.spare <- b
		p.flying.Done()
	}
}

func (p *creators) do(c *creation) {
	defer c.dir.release()
	if p.failed.Load() {
		return
	}
	if err := p.make(c); err != nil {
		p.once.Do(func() { p.err = entryError(c.entry.Name, err) })
		p.failed.Store(true)
	}
}

package rootfs

import (
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/layer"
)

const (
	smallFile = 64 << 10  // content up to this size is written aside
	batchSize = 256 << 10 // content that is handed over at once
	batchJobs = 64        // files that are handed over at once
)

// job is a file that lacks its content and metadata, and may have to be made first.
type job struct {
	dir   *dirHandle // nil if the file is there; the writer releases it
	name  string     // in dir
	file  *inroot.File
	entry *layer.Entry
	data  []byte // nil if the content is written
	chown bool
}

func (j *job) write() error {
	if len(j.data) == 0 {
		return nil
	}
	_, err := j.file.Write(j.data)
	return err
}

// drop gives up a file that is not finished.
func (j *job) drop() error {
	if j.dir != nil {
		return j.dir.release()
	}
	return j.file.Close()
}

// batch is some jobs and the memory with their content.
type batch struct {
	jobs []job
	data []byte
}

// writers finish small files, several at once, while the layer is read on.
type writers struct {
	finish func(*job) error
	queue  chan *batch
	pool   chan *batch
	next   *batch // being filled
	flying sync.WaitGroup
	group  sync.WaitGroup
	failed atomic.Bool
	once   sync.Once
	err    error
}

func newWriters(n int, finish func(*job) error) *writers {
	if n <= 0 {
		n = min(runtime.GOMAXPROCS(0), 8)
	}
	w := &writers{
		finish: finish,
		queue:  make(chan *batch, n),
		pool:   make(chan *batch, 2*n+1),
	}
	for range cap(w.pool) {
		w.pool <- nil // made when first needed: many layers are small
	}
	for range n {
		w.group.Go(w.run)
	}
	return w
}

// small reads a file's content, and passes the file to a writer sooner or later. The file is the writers' from here on.
func (w *writers) small(j job, r io.Reader) error {
	size := int(j.entry.Size)
	if w.next != nil && (len(w.next.data)+size > batchSize || len(w.next.jobs) == batchJobs) {
		w.flush()
	}
	if w.next == nil {
		w.next = w.take()
	}
	start := len(w.next.data)
	j.data = w.next.data[start : start+size]
	if _, err := io.ReadFull(r, j.data); err != nil {
		return errors.Join(err, j.drop())
	}
	w.next.data = w.next.data[:start+size]
	w.next.jobs = append(w.next.jobs, j)
	return nil
}

func (w *writers) take() *batch {
	if b := <-w.pool; b != nil {
		return b
	}
	return &batch{jobs: make([]job, 0, batchJobs), data: make([]byte, 0, batchSize)}
}

func (w *writers) flush() {
	if w.next != nil {
		w.flying.Add(1)
		w.queue <- w.next
		w.next = nil
	}
}

// settle returns when all files so far are finished, as far as none failed.
func (w *writers) settle() {
	w.flush()
	w.flying.Wait()
}

// wait returns when all files are finished, with the first error there was.
func (w *writers) wait() error {
	w.flush()
	close(w.queue)
	w.group.Wait()
	return w.err
}

func (w *writers) run() {
	for b := range w.queue {
		for i := range b.jobs {
			w.do(&b.jobs[i])
		}
		clear(b.jobs)
		b.jobs, b.data = b.jobs[:0], b.data[:0]
		w.flying.Done()
		w.pool <- b
	}
}

// do finishes one file, or only closes it when there is no more use in it.
func (w *writers) do(j *job) {
	if w.failed.Load() {
		_ = j.drop()
		return
	}
	if err := w.finish(j); err != nil {
		w.once.Do(func() { w.err = entryError(j.entry.Name, err) })
		w.failed.Store(true)
	}
}

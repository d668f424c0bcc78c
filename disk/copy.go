package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime"
	"sync"

	"github.com/hostcompute/hcs/layer"
)

const (
	copyChunk = 1 * mib
	// Zeros are looked for in units of this size. It is also what holes in files are good for.
	holeUnit = 64 * kib
)

// copyBuffers is how many chunks are on the way from the one disk to the other.
const copyBuffers = 4

// Copy writes the first size bytes of src to dst, which is zero there: zeros are not written, so that holes stay holes and
// blocks without data are not allocated. Use io.NewOffsetWriter and io.NewSectionReader for parts of a disk. One goroutine
// reads while this one writes; both have ended when Copy returns. It takes 4 MiB of memory.
func Copy(ctx context.Context, dst io.WriterAt, src io.ReaderAt, size int64) error {
	c := copier{
		dst: dst, src: src, full: make(chan chunk, copyBuffers), spare: make(chan []byte, copyBuffers), stop: make(chan struct{}),
	}
	for range copyBuffers {
		c.spare <- nil // made when first needed: many parts of disks are small
	}
	var group sync.WaitGroup
	group.Go(func() {
		defer close(c.full)
		c.failure = c.read(size)
	})
	err := c.write(ctx)
	close(c.stop)
	group.Wait()
	if err == nil {
		err = c.failure
	}
	if err != nil {
		return fmt.Errorf("copy disk: %w", err)
	}
	return nil
}

// copier is the way from the one disk to the other: the reader fills buffers, the writer gives them back.
type copier struct {
	dst     io.WriterAt
	src     io.ReaderAt
	full    chan chunk
	spare   chan []byte
	stop    chan struct{} // closed when the writer wants no more
	failure error         // of the reader, once full is closed
}

// chunk is what was read at an offset. It ends at a multiple of copyChunk, or where the data does.
type chunk struct {
	data []byte
	at   int64
}

func (c *copier) read(size int64) error {
	for x, err := range dataOf(c.src, size) {
		if err == nil {
			err = c.extent(x.Offset, min(x.Offset+x.Length, size))
		}
		if errors.Is(err, errCopyStopped) {
			return nil
		}
		if err != nil {
			return err
		}
		if x.Offset+x.Length >= size {
			break
		}
	}
	return nil
}

// errCopyStopped ends the reading when the writer has failed.
var errCopyStopped = errors.New("stopped")

// extent reads what is from start up to end.
func (c *copier) extent(start, end int64) error {
	for start < end {
		n := min(end-start, copyChunk-start%copyChunk)
		var p []byte
		select {
		case <-c.stop:
			return errCopyStopped
		case p = <-c.spare:
		}
		if int64(cap(p)) < n {
			p = make([]byte, n, copyChunk)
		}
		p = p[:n]
		if m, err := c.src.ReadAt(p, start); int64(m) < n {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read at offset %d: %w", start+int64(m), err)
		}
		c.full <- chunk{p, start} // which has room for all buffers
		start += n
	}
	return nil
}

// write writes what comes until there is no more.
func (c *copier) write(ctx context.Context) error {
	for b := range c.full {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := c.put(b.data, b.at); err != nil {
			return err
		}
		c.spare <- b.data
	}
	return nil
}

// put writes p without its zeros.
func (c *copier) put(p []byte, off int64) error {
	for len(p) > 0 {
		skip := runOf(p, off, true)
		p, off = p[skip:], off+int64(skip)
		n := runOf(p, off, false)
		if n > 0 {
			if _, err := c.dst.WriteAt(p[:n], off); err != nil {
				return err
			}
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// runOf returns how much of p, up to units' borders, is zero, or is not.
func runOf(p []byte, off int64, zero bool) int {
	n := 0
	for n < len(p) {
		unit := min(len(p)-n, holeUnit-int((off+int64(n))%holeUnit))
		if isZero(p[n:n+unit]) != zero {
			break
		}
		n += unit
	}
	return n
}

// dataOf yields the runs of src that may have other bytes than zero.
func dataOf(src io.ReaderAt, size int64) iter.Seq2[layer.Extent, error] {
	if d, ok := src.(*Disk); ok {
		return d.Extents()
	}
	return func(yield func(layer.Extent, error) bool) {
		for off := int64(0); off < size; {
			start, n, err := nextData(src, off, size)
			if n == 0 && err == nil || !yield(layer.Extent{Offset: start, Length: n}, err) || err != nil {
				return
			}
			off = start + n
		}
	}
}

// Of lseek(2) on Linux; elsewhere other numbers or nothing mean this.
const (
	seekData = 3
	seekHole = 4
)

// nextData returns the first run of r from off up to end that is no hole, as far as the system tells.
func nextData(r io.ReaderAt, off, end int64) (start, n int64, err error) {
	f, ok := r.(*os.File)
	if !ok || runtime.GOOS != "linux" {
		return off, max(end-off, 0), nil
	}
	start, err = f.Seek(off, seekData)
	if err != nil {
		return nextWithoutData(f, off, end)
	}
	hole, err := f.Seek(start, seekHole)
	if err != nil {
		hole = end
	}
	return start, max(min(hole, end)-start, 0), nil
}

// nextWithoutData tells a file that ends in a hole, where seeking data fails with ENXIO, from what has no holes, such as
// some devices.
func nextWithoutData(f *os.File, off, end int64) (start, n int64, err error) {
	if _, err := f.Seek(off, seekHole); err == nil {
		return off, 0, nil
	}
	return off, max(end-off, 0), nil
}

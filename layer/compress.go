package layer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
)

// Compression is how a layer's blob is compressed.
type Compression uint8

// The compressions of the OCI image specification's layer media types.
const (
	None Compression = iota
	Gzip
	Zstd
)

var compressionNames = [...]string{"none", "gzip", "zstd"}

// String returns "none", "gzip" or "zstd".
func (c Compression) String() string {
	if int(c) < len(compressionNames) {
		return compressionNames[c]
	}
	return fmt.Sprintf("compression %d", uint8(c))
}

// Suffix returns what the compression adds to a media type: "", "+gzip" or
// "+zstd".
func (c Compression) Suffix() string {
	if c == None {
		return ""
	}
	return "+" + c.String()
}

// MediaType returns the media type of an OCI layer with this compression.
func (c Compression) MediaType() string {
	return "application/vnd.oci.image.layer.v1.tar" + c.Suffix()
}

// ParseCompression returns the compression that String names.
func ParseCompression(s string) (Compression, error) {
	for i, name := range compressionNames {
		if s == name {
			return Compression(i), nil
		}
	}
	return None, invalid("unknown compression %q", s)
}

// Decompress detects by its first bytes how r is compressed, and returns the
// decompressed stream. It reads r to its end before it reports io.EOF: gzip of
// several members with zeros after them, as gzip(1) accepts it, zstd of
// several frames, skippable ones among them. A stream that is cut off or
// damaged is an error of class errdefs.ErrDataLoss, one that exceeds l.Ratio
// or l.Window of class errdefs.ErrResourceExhausted. Close does not close r.
func Decompress(r io.Reader, l Limits) (io.ReadCloser, Compression, error) {
	l = l.effective()
	in := &countReader{r: r}
	br := bufio.NewReaderSize(in, 64<<10)
	magic, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, None, fmt.Errorf("detect compression: %w", err)
	}
	c, err := detect(magic)
	if err != nil {
		return nil, None, err
	}
	d := &decompressor{c: c, in: in, ratio: l.Ratio, window: l.Window}
	switch c {
	case Gzip:
		d.r, err = newGzipReader(br)
	case Zstd:
		d.r, err = newZstdReader(br, l)
	default:
		d.r = io.NopCloser(br)
	}
	if err != nil {
		return nil, c, d.classify(err)
	}
	return d, c, nil
}

// detect judges a stream by its first bytes.
func detect(magic []byte) (Compression, error) {
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return Gzip, nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd, nil
	case len(magic) >= 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:4], []byte{0x2a, 0x4d, 0x18}):
		return Zstd, nil // a skippable frame (RFC 8878, 3.1.2)
	case bytes.HasPrefix(magic, []byte("BZh")):
		return None, unsupported("bzip2")
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
		return None, unsupported("xz")
	}
	return None, nil
}

func unsupported(name string) error {
	return fmt.Errorf("decompress layer: %s is not supported: %w", name, errdefs.ErrNotImplemented)
}

// countReader counts what it reads, and remembers what went wrong there: all
// other errors of a decoder mean that the stream is damaged.
type countReader struct {
	r   io.Reader
	n   int64
	err error
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// decompressor watches the ratio, and gives errors their class.
type decompressor struct {
	r     io.ReadCloser
	c     Compression
	in    *countReader
	out   int64
	ratio int64

	window int64
}

func (d *decompressor) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	d.out += int64(n)
	if d.c != None && d.out > ratioFloor && d.out/d.ratio > d.in.n {
		return 0, fmt.Errorf("decompress layer: %w", exceeded("Ratio", d.ratio))
	}
	if err != nil && err != io.EOF {
		err = d.classify(err)
	}
	return n, err
}

func (d *decompressor) Close() error { return d.r.Close() }

func (d *decompressor) classify(err error) error {
	switch {
	case d.in.err != nil || d.c == None:
		return fmt.Errorf("read layer: %w", err)
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fmt.Errorf("decompress layer: %w: %w", err, exceeded("Window", d.window))
	}
	return fmt.Errorf("decompress layer (%s): %w: %w", d.c, err, errdefs.ErrDataLoss)
}

// newZstdReader returns a decoder without goroutines: its caller has some.
func newZstdReader(r io.Reader, l Limits) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(uint64(max(l.Window, zstd.MinWindowSize))),
		zstd.WithDecoderMaxMemory(uint64(max(l.Window, zstd.MinWindowSize))),
	)
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

var errGarbage = errors.New("data after the end of the compressed stream")

// gzipReader reads the members of a gzip stream one by one, because the zeros
// that may follow the last one are no member.
type gzipReader struct {
	br *bufio.Reader
	z  *gzip.Reader
}

func newGzipReader(br *bufio.Reader) (*gzipReader, error) {
	z, err := gzip.NewReader(br)
	if err != nil {
		return nil, cutOff(err)
	}
	z.Multistream(false)
	return &gzipReader{br, z}, nil
}

func (g *gzipReader) Read(p []byte) (int, error) {
	for {
		n, err := g.z.Read(p)
		if n > 0 && err == io.EOF {
			err = nil // comes again
		}
		if n > 0 || err != io.EOF {
			return n, err
		}
		if err := g.nextMember(); err != nil {
			return 0, err
		}
	}
}

// nextMember returns io.EOF if there is none.
func (g *gzipReader) nextMember() error {
	magic, err := g.br.Peek(2)
	if err != nil && err != io.EOF {
		return err
	}
	if bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		if err := g.z.Reset(g.br); err != nil {
			return cutOff(err)
		}
		g.z.Multistream(false)
		return nil
	}
	for {
		c, err := g.br.ReadByte()
		if err != nil {
			return err
		}
		if c != 0 {
			return errGarbage
		}
	}
}

func (g *gzipReader) Close() error { return g.z.Close() }

// Sizes on which the compressors' output depends. With them fixed it is the
// same whatever the number of processors.
const (
	gzipBlock  = 1 << 20
	zstdWindow = 2 << 20
)

// Compress returns a writer that compresses to w on all processors. The same
// bytes give the same output, however they are cut into writes. Close writes
// what is left; it does not close w.
func Compress(w io.Writer, c Compression) (io.WriteCloser, error) {
	procs := runtime.GOMAXPROCS(0)
	switch c {
	case None:
		return nopCloser{w}, nil
	case Gzip:
		z := pgzip.NewWriter(w)
		return z, z.SetConcurrency(gzipBlock, 2*procs)
	case Zstd:
		return zstd.NewWriter(w,
			zstd.WithEncoderConcurrency(max(2, procs)), // 1 would choose another algorithm
			zstd.WithConcurrentBlocks(true),
			zstd.WithWindowSize(zstdWindow),
			zstd.WithZeroFrames(true),
		)
	}
	return nil, invalid("unknown compression %d", uint8(c))
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

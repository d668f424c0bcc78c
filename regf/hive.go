package regf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// The layout is that of "Windows registry file format specification",
// https://github.com/msuhanov/regf, told again in docs/formats/registry-hive.md.

var (
	// ErrCorrupt is the class of errors about a file that contradicts itself or the format.
	ErrCorrupt = errors.New("registry hive is damaged")
	// ErrUnsupported is the class of errors about a file that is a hive, but of a kind that is not read here.
	ErrUnsupported = errors.New("registry hive is not supported")
	// ErrNotExist is the class of errors about keys and values that are not there.
	ErrNotExist = errors.New("no such registry key or value")
	// ErrInvalid is the class of errors about names and data that no hive can hold.
	ErrInvalid = errors.New("invalid registry data")
)

const (
	headerSize  = 4096
	binAlign    = 4096
	binHeader   = 32
	maxDataSize = 1 << 31 // the highest bit of an offset once meant volatile cells
	noCell      = 0xFFFFFFFF

	// MaxDepth is how many keys deep a hive may be, as on Windows.
	MaxDepth = 512
)

// Filetime counts 100 ns since the year 1601, UTC.
type Filetime uint64

// The Unix epoch as a Filetime.
const filetimeEpoch = 116444736000000000

// FiletimeOf returns the time as a Filetime, which holds the years 1601 to 60055.
func FiletimeOf(t time.Time) Filetime {
	return Filetime(t.Unix()*1e7 + int64(t.Nanosecond())/100 + filetimeEpoch) //nolint:gosec // before 1601 there is nothing to say
}

// Time returns the Filetime in UTC.
func (f Filetime) Time() time.Time {
	t := int64(f/1e7) - filetimeEpoch/1e7 //nolint:gosec // a quotient fits
	return time.Unix(t, int64(f%1e7)*100).UTC()
}

// HeaderFlags are the flags of the base block.
type HeaderFlags uint32

// HeaderLayered marks a hive that may hold layered keys.
const HeaderLayered HeaderFlags = 2

// A Header is what the base block of a hive says.
type Header struct {
	Major, Minor       uint32
	Primary, Secondary uint32 // sequence numbers; they differ in a dirty hive
	Written            Filetime
	FileName           string // at most the last 31 characters of a path, as the writer knew it
	Flags              HeaderFlags
	DataSize           uint32 // of the hive bins, without the base block
}

// Dirty reports whether the hive's writer was interrupted, so that its logs hold what it lacks.
func (h Header) Dirty() bool { return h.Primary != h.Secondary }

// A Hive is a view of a hive file. Any number of goroutines may read it.
type Hive struct {
	Header

	base  []byte // the base block
	root  uint32
	cells store
}

// Parse opens a hive in memory. The hive refers to data, which must not change, and what it returns may refer to it too.
func Parse(data []byte) (*Hive, error) {
	base := data[:min(len(data), headerSize)]
	h, err := newHive(base, int64(len(data)))
	if err != nil {
		return nil, err
	}
	h.cells.data = data[headerSize:][:h.DataSize:h.DataSize]
	return h, h.checkFirstBin()
}

// Open opens the hive of size bytes in r, reading blocks of it when they are first needed and keeping them.
func Open(r io.ReaderAt, size int64) (*Hive, error) {
	base := make([]byte, min(headerSize, max(0, size)))
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, int64(len(base))), base); err != nil {
		return nil, fmt.Errorf("read the hive's base block: %w", err)
	}
	h, err := newHive(base, size)
	if err != nil {
		return nil, err
	}
	h.cells.r = r
	h.cells.blocks = make([]atomic.Pointer[[]byte], (h.DataSize+blockSize-1)/blockSize)
	return h, h.checkFirstBin()
}

func newHive(base []byte, size int64) (*Hive, error) {
	if len(base) < headerSize || string(base[:4]) != "regf" {
		return nil, fmt.Errorf("read the hive's base block: no base block of a hive in %d bytes: %w", size, ErrCorrupt)
	}
	if got, want := le32(base[508:]), checksum(base); got != want {
		return nil, fmt.Errorf("read the hive's base block: checksum %#x is not %#x: %w", got, want, ErrCorrupt)
	}
	h := &Hive{Header: parseHeader(base), base: base, root: le32(base[36:])}
	h.cells.size = h.DataSize
	if h.Major != 1 || h.Minor < 3 || h.Minor > 6 {
		return nil, fmt.Errorf("read the hive's base block: version %d.%d: %w", h.Major, h.Minor, ErrUnsupported)
	}
	if kind, format := le32(base[28:]), le32(base[32:]); kind != 0 || format != 1 {
		return nil, fmt.Errorf("read the hive's base block: file of type %d, format %d: %w", kind, format, ErrUnsupported)
	}
	if n := h.DataSize; n == 0 || n%binAlign != 0 || n > maxDataSize || int64(n) > size-headerSize {
		return nil, fmt.Errorf("read the hive's base block: %#x bytes of hive bins in a file of %#x: %w", n, size, ErrCorrupt)
	}
	return h, nil
}

func parseHeader(base []byte) Header {
	return Header{
		Primary: le32(base[4:]), Secondary: le32(base[8:]),
		Written: Filetime(le64(base[12:])),
		Major:   le32(base[20:]), Minor: le32(base[24:]),
		DataSize: le32(base[40:]),
		FileName: textUpToNUL(base[48:112]),
		Flags:    HeaderFlags(le32(base[144:])),
	}
}

func (h *Hive) checkFirstBin() error {
	b, err := h.cells.bytes(0, binHeader)
	if err != nil {
		return err
	}
	if string(b[:4]) != "hbin" || le32(b[4:]) != 0 {
		return fmt.Errorf("read the hive's first bin: no hive bin at 0x0: %w", ErrCorrupt)
	}
	return nil
}

// checksum is the XOR of the words before it, which is never 0 or all ones.
func checksum(base []byte) uint32 {
	var sum uint32
	for i := 0; i < 508; i += 4 {
		sum ^= le32(base[i:])
	}
	switch sum {
	case 0:
		return 1
	case 0xFFFFFFFF:
		return 0xFFFFFFFE
	}
	return sum
}

// cell returns the content of an allocated cell, without its size.
func (h *Hive) cell(off uint32, what string) ([]byte, error) {
	if off < binHeader || off%8 != 0 || off > h.cells.size-8 {
		return nil, corrupt(off, "%s outside of the hive's %#x bytes", what, h.cells.size)
	}
	b, err := h.cells.bytes(off, 4)
	if err != nil {
		return nil, err
	}
	size := -int64(int32(le32(b))) //nolint:gosec // allocated cells have a negative size
	if size < 8 || size%8 != 0 || size > int64(h.cells.size-off) {
		return nil, corrupt(off, "%s in a cell of size %d", what, size)
	}
	b, err = h.cells.bytes(off, uint32(size)) //nolint:gosec // checked above
	if err != nil {
		return nil, err
	}
	return b[4:], nil
}

// record returns the content of a cell that starts with the signature and has at least size bytes.
func (h *Hive) record(off uint32, signature string, size int, what string) ([]byte, error) {
	b, err := h.cell(off, what)
	if err != nil {
		return nil, err
	}
	if len(b) < size || string(b[:2]) != signature {
		return nil, corrupt(off, "no %s", what)
	}
	return b, nil
}

func corrupt(off uint32, format string, args ...any) error {
	return fmt.Errorf("read cell %#x: %s: %w", off, fmt.Sprintf(format, args...), ErrCorrupt)
}

const blockSize = 256 << 10

// A store holds the hive bins: in memory, or as blocks of a file that are read when needed and kept.
type store struct {
	size   uint32
	data   []byte
	r      io.ReaderAt
	blocks []atomic.Pointer[[]byte]
}

// bytes returns n bytes at off, which the caller knows to be inside.
func (s *store) bytes(off, n uint32) ([]byte, error) {
	if s.r == nil {
		return s.data[off : off+n : off+n], nil
	}
	i := off / blockSize
	if (off+n-1)/blockSize == i {
		b, err := s.block(i)
		if err != nil {
			return nil, err
		}
		at := off % blockSize
		return b[at : at+n : at+n], nil
	}
	out := make([]byte, 0, n)
	for uint32(len(out)) < n { //nolint:gosec // n is a uint32
		b, err := s.block(i)
		if err != nil {
			return nil, err
		}
		at := (off + uint32(len(out))) % blockSize //nolint:gosec // n is a uint32
		out = append(out, b[at:min(uint32(len(b)), at+n-uint32(len(out)))]...)
		i++
	}
	return out, nil
}

// block returns a block of the file. Two goroutines that miss it both read it; either's bytes will do.
func (s *store) block(i uint32) ([]byte, error) {
	if b := s.blocks[i].Load(); b != nil {
		return *b, nil
	}
	b := make([]byte, min(blockSize, s.size-i*blockSize))
	off := int64(headerSize) + int64(i)*blockSize
	if _, err := io.ReadFull(io.NewSectionReader(s.r, off, int64(len(b))), b); err != nil {
		return nil, fmt.Errorf("read the hive at %#x: %w", off, err)
	}
	s.blocks[i].Store(&b)
	return b, nil
}

func le16(b []byte) uint16 { return binary.LittleEndian.Uint16(b) }
func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

func put16(b []byte, v uint16) { binary.LittleEndian.PutUint16(b, v) }
func put32(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }
func put64(b []byte, v uint64) { binary.LittleEndian.PutUint64(b, v) }

package winio

import (
	"time"

	"github.com/hostcompute/hcs/ntfs"
)

// FileBasicInfo is Windows' FILE_BASIC_INFO: four times and the attributes of a file. It has the same layout in memory as
// there, 40 bytes.
type FileBasicInfo struct {
	CreationTime, LastAccessTime, LastWriteTime, ChangeTime Filetime
	FileAttributes                                          uint32

	_ uint32
}

// Filetime counts intervals of 100 ns since 1601, in two halves.
type Filetime struct {
	LowDateTime  uint32
	HighDateTime uint32
}

// epoch is 1970 as a Filetime.
const epoch = 116444736000000000

// Nanoseconds returns the time in ns since 1970, which reaches from 1678 to 2262.
func (f Filetime) Nanoseconds() int64 {
	return (f.intervals() - epoch) * 100
}

// NsecToFiletime returns the time that lies nsec ns after 1970.
func NsecToFiletime(nsec int64) Filetime {
	return filetime(nsec/100 + epoch)
}

// NewFiletime returns the time as Windows counts it; the zero time, which says nothing, is 0.
func NewFiletime(t time.Time) Filetime {
	return filetime(int64(ntfs.FromTime(t)))
}

// Time returns the time; 0 is the zero time.
func (f Filetime) Time() time.Time {
	return ntfs.FileTime(f.intervals()).Time()
}

func (f Filetime) intervals() int64 {
	return int64(f.HighDateTime)<<32 | int64(f.LowDateTime)
}

func filetime(intervals int64) Filetime {
	return Filetime{LowDateTime: uint32(intervals), HighDateTime: uint32(intervals >> 32)} //nolint:gosec // two halves
}

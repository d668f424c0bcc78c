package ntfs

import (
	"math"
	"time"
)

// FileTime counts 100 ns intervals since 1601-01-01 00:00 UTC, as NTFS does
// (MS-DTYP 2.3.3). Zero means "no time". Negative values, which Windows never
// stores, are times before 1601.
type FileTime int64

const (
	ticksPerSecond = int64(time.Second / 100)
	// unixEpoch is 1970 in seconds since 1601.
	unixEpoch = 11644473600
)

// FromTime returns t in 100 ns intervals; what is finer is cut off towards
// the past, so that earlier times stay earlier, before 1970 too. The zero
// time.Time gives 0, and so does 1601-01-01 00:00 itself. Times that 64 bits
// cannot hold (before the year -27627, after 30828) give the nearest that they
// can.
func FromTime(t time.Time) FileTime {
	if t.IsZero() {
		return 0
	}
	seconds := t.Unix()
	switch {
	case seconds > math.MaxInt64/ticksPerSecond-unixEpoch-1:
		return math.MaxInt64
	case seconds < math.MinInt64/ticksPerSecond-unixEpoch+1:
		return math.MinInt64
	}
	return FileTime((seconds+unixEpoch)*ticksPerSecond + int64(t.Nanosecond()/100))
}

// Time returns the time in UTC, the zero time.Time for 0.
func (f FileTime) Time() time.Time {
	if f == 0 {
		return time.Time{}
	}
	seconds, ticks := int64(f)/ticksPerSecond, int64(f)%ticksPerSecond
	return time.Unix(seconds-unixEpoch, ticks*100).UTC()
}

package winio_test

import (
	"testing"
	"time"
	"unsafe"

	"github.com/hostcompute/hcs/compat/hcsshim/winio"
)

func TestFiletime(t *testing.T) {
	t.Parallel()
	if size := unsafe.Sizeof(winio.FileBasicInfo{}); size != 40 {
		t.Errorf("FileBasicInfo has %d bytes, want 40", size)
	}
	for _, c := range []struct {
		at   time.Time
		want winio.Filetime
	}{
		{time.Time{}, winio.Filetime{}},
		{time.Unix(0, 0), winio.Filetime{LowDateTime: 0xd53e8000, HighDateTime: 0x19db1de}},
		{time.Date(2020, 1, 2, 3, 4, 5, 600, time.UTC), winio.NsecToFiletime(1577934245000000600)},
		{time.Date(1960, 1, 2, 3, 4, 5, 600, time.UTC), winio.NsecToFiletime(-315521754999999400)},
	} {
		got := winio.NewFiletime(c.at)
		if got != c.want || !got.Time().Equal(c.at) {
			t.Errorf("%v is %v (%v), want %v", c.at, got, got.Time(), c.want)
		}
		if !c.at.IsZero() && got.Nanoseconds() != c.at.UnixNano() {
			t.Errorf("%v: got %d ns, want %d", c.at, got.Nanoseconds(), c.at.UnixNano())
		}
	}
}

package rootfs

import (
	"bytes"
	"crypto/sha256"
	"io"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// TestNTAttributeTimes has files differ in their attributes by more than ext4's hash of them cancels out, and reads the form of
// before.
func TestNTAttributeTimes(t *testing.T) {
	at := time.Date(2024, 2, 3, 4, 5, 6, 700, time.UTC)
	e := &layer.Entry{ChangeTime: at, NT: &ntfs.Meta{Attributes: ntfs.AttrArchive, CreationTime: at}}
	attr, err := appendNTMeta(nil, e, nil)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(attr[8:16], attr[16:24]) {
		t.Error("equal times are equal bytes")
	}
	old := bytes.Clone(attr)
	old[0] = ntVersionOld
	copy(old[16:24], old[8:16])
	for _, b := range [][]byte{attr, old} {
		var got layer.Entry
		if err := parseNTMeta(b, &got, nil); err != nil || !got.ChangeTime.Equal(at) || !got.NT.CreationTime.Equal(at) {
			t.Errorf("version %d: %v, %v, %v", b[0], got.NT, got.ChangeTime, err)
		}
	}
}

// FuzzNTAttribute decodes attributes: what can be decoded is encoded to the same again, anything else is damaged.
func FuzzNTAttribute(f *testing.F) {
	at := time.Date(2024, 2, 3, 4, 5, 6, 700, time.UTC)
	e := &layer.Entry{ChangeTime: at, NT: &ntfs.Meta{
		Attributes: ntfs.AttrArchive, CreationTime: at, SecurityDescriptor: []byte("descriptor"), ShortName: "A~1.TXT",
		EA: []ntfs.EA{{Name: "EA", Value: []byte("value")}},
	}}
	var spilled []byte
	spill := func(b []byte) ([sha256.Size]byte, error) {
		spilled = b
		return sha256.Sum256(b), nil
	}
	short, err := appendNTMeta(nil, e, spill)
	if err != nil {
		f.Fatal(err)
	}
	e.NT.SecurityDescriptor = bytes.Repeat([]byte("d"), ntInline)
	long, err := appendNTMeta(nil, e, spill)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(short, []byte(nil))
	f.Add(long, spilled)
	f.Fuzz(func(t *testing.T, attr, spilled []byte) {
		open := func([sha256.Size]byte) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(spilled)), nil }
		var first, second layer.Entry
		if err := parseNTMeta(attr, &first, open); err != nil {
			if !errdefs.IsDataLoss(err) {
				t.Error(err)
			}
			return
		}
		again, err := appendNTMeta(nil, &first, func(b []byte) ([sha256.Size]byte, error) {
			spilled = b
			return sha256.Sum256(b), nil
		})
		if err != nil {
			return // an extended attribute that cannot be written
		}
		if err := parseNTMeta(again, &second, open); err != nil {
			t.Fatal(err)
		}
		first.NT.Streams = nil // which have content
		if diff := cmp.Diff(first, second, cmpopts.IgnoreUnexported(layer.Entry{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("-first +again:\n%s", diff)
		}
	})
}

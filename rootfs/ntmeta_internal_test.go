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

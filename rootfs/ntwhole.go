package rootfs

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// The records of a layer that was imported entry by entry, in its own stream: what a tar stream has no form for.
// docs/formats/layer-directory.md has the layout. A layer that came as a tar stream may have records of these names, which
// mean nothing.
const (
	metaRecord   = "HCS.meta"   // the attribute of the file, base64
	sparseRecord = "HCS.sparse" // the number of runs of data, and ,OFFSET+LENGTH of each
)

// tellable returns an entry that a tar stream can tell, with the rest in records.
func tellable(e *layer.Entry, spill func([]byte) ([sha256.Size]byte, error)) (*layer.Entry, error) {
	for _, key := range []string{metaRecord, sparseRecord} {
		if _, ok := e.Records[key]; ok {
			return nil, fmt.Errorf("PAX record %q is the layer directory's own: %w", key, errdefs.ErrInvalidArgument)
		}
	}
	described := e.Kind == layer.File || e.Kind == layer.Dir || e.Kind == layer.Symlink
	described = described && !toldByTar(e)
	if !described && e.Data == nil {
		return e, nil
	}
	told := *e
	told.Records = maps.Clone(e.Records)
	if told.Records == nil {
		told.Records = make(map[string]string)
	}
	if e.Data != nil {
		told.Records[sparseRecord] = formatExtents(e.Data)
		told.Data = nil
	}
	if described {
		meta, err := appendNTMeta(nil, e, spill)
		if err != nil {
			return nil, err
		}
		told.Records[metaRecord] = base64.StdEncoding.EncodeToString(meta)
		told.Link, told.NT = "", &ntfs.Meta{Attributes: e.NT.Attributes, CreationTime: e.NT.CreationTime}
	}
	return &told, nil
}

// toldByTar says of most entries that a tar stream tells all of their metadata.
func toldByTar(e *layer.Entry) bool {
	m := e.NT
	if m.Reparse != nil || m.EA != nil || m.ObjectID != nil || m.ShortName != "" || m.Kept != nil {
		return false
	}
	const ofKind = ntfs.AttrDirectory | ntfs.AttrReparse
	switch e.Kind {
	case layer.Dir:
		return m.Attributes&ofKind == ntfs.AttrDirectory
	case layer.Symlink:
		return m.Attributes&ntfs.AttrReparse != 0
	}
	return m.Attributes&ofKind == 0
}

// wholeAgain undoes tellable.
func wholeAgain(root *inroot.Root, e *layer.Entry) error {
	meta, described := e.Records[metaRecord]
	sparse, isSparse := e.Records[sparseRecord]
	if !described && !isSparse {
		return nil
	}
	e.Forget()
	e.Records = maps.Clone(e.Records)
	delete(e.Records, metaRecord)
	delete(e.Records, sparseRecord)
	if len(e.Records) == 0 {
		e.Records = nil
	}
	if isSparse {
		var err error
		if e.Data, err = parseExtents(sparse); err != nil {
			return err
		}
	}
	if !described {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(meta)
	if err != nil {
		return fmt.Errorf("record %s: %w: %w", metaRecord, err, errdefs.ErrDataLoss)
	}
	if err := parseNTMeta(b, e, spillsOf(root)); err != nil {
		return err
	}
	if link, err := ntfs.ParseLink(e.NT.Reparse); err == nil && e.Kind == layer.Symlink {
		e.Link = link.Target()
	}
	return nil
}

func formatExtents(data []layer.Extent) string {
	b := strconv.AppendInt(nil, int64(len(data)), 10)
	for _, x := range data {
		b = strconv.AppendInt(append(b, ','), x.Offset, 10)
		b = strconv.AppendInt(append(b, '+'), x.Length, 10)
	}
	return string(b)
}

// parseExtents reads what formatExtents has written: runs that ascend and do not overlap.
func parseExtents(s string) ([]layer.Extent, error) {
	count, runs, some := strings.Cut(s, ",")
	data := []layer.Extent{}
	end := int64(0)
	for some {
		var run string
		run, runs, some = strings.Cut(runs, ",")
		offset, length, _ := strings.Cut(run, "+")
		var x layer.Extent
		var err1, err2 error
		x.Offset, err1 = strconv.ParseInt(offset, 10, 64)
		x.Length, err2 = strconv.ParseInt(length, 10, 64)
		if err1 != nil || err2 != nil || x.Offset < end || x.Length < 0 || x.Length > math.MaxInt64-x.Offset {
			return nil, fmt.Errorf("record %s is damaged at %q: %w", sparseRecord, run, errdefs.ErrDataLoss)
		}
		end = x.Offset + x.Length
		data = append(data, x)
	}
	if n, err := strconv.Atoi(count); err != nil || n != len(data) {
		return nil, fmt.Errorf("record %s is damaged: %q runs, and %d are told: %w", sparseRecord, count, len(data), errdefs.ErrDataLoss)
	}
	return data, nil
}

package backuptar_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hostcompute/hcs/compat/hcsshim/internal/transfer"
	"github.com/hostcompute/hcs/compat/hcsshim/winio"
	"github.com/hostcompute/hcs/compat/hcsshim/winio/backuptar"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

type object struct {
	Entry   *layer.Entry
	Content string
}

// objects has one of each thing that a Windows layer holds, but for whiteouts and hard links, which have no backup stream.
func objects(t *testing.T) []object {
	t.Helper()
	at := time.Date(2021, 3, 4, 5, 6, 7, 800, time.UTC)
	sd, err := ntfs.ParseSDDL("O:BAG:SYD:(A;OICI;FA;;;BA)")
	check(t, err)
	descriptor, err := sd.Append(nil)
	check(t, err)
	entry := func(kind layer.Kind, name string, attributes ntfs.Attributes, size int) *layer.Entry {
		return &layer.Entry{Kind: kind, Name: name, Size: int64(size), ModTime: at, AccessTime: at.Add(time.Hour), ChangeTime: at.Add(2 * time.Hour), NT: &ntfs.Meta{
			Attributes: attributes, CreationTime: time.Date(1969, 12, 31, 23, 59, 59, 5e8, time.UTC), SecurityDescriptor: descriptor,
		}}
	}
	link := func(name, target string, tag ntfs.ReparseTag) *layer.Entry {
		e := entry(layer.Symlink, name, ntfs.AttrReparse|ntfs.AttrDirectory, 0)
		e.Link, e.NT.Reparse = target, nil
		e.NT.Reparse, err = ntfs.NewLink(tag, target).Append(nil)
		check(t, err)
		return e
	}
	stream := func(name, stream string, size int) *layer.Entry {
		e := entry(layer.Stream, name, 0, size)
		e.Stream, e.NT = stream, &ntfs.Meta{}
		return e
	}
	withEA := entry(layer.File, "Files/with attributes", ntfs.AttrHidden, 5)
	withEA.NT.EA = []ntfs.EA{{Name: "A", Value: []byte("1")}, {Name: "B", Value: []byte{0, 1}}}
	return []object{
		{entry(layer.Dir, "Files", ntfs.AttrDirectory, 0), ""},
		{stream("Files", "of a directory", 3), "dir"},
		{withEA, "hello"},
		{stream("Files/with attributes", "Zone.Identifier", 4), "zone"},
		{stream("Files/with attributes", "empty", 0), ""},
		{entry(layer.File, "Files/empty", ntfs.AttrArchive, 0), ""},
		{entry(layer.File, "Files/"+strings.Repeat("long ", 40)+"\u00e4", ntfs.AttrArchive, 700), strings.Repeat("x", 700)},
		{link("Files/link", `..\a b`, ntfs.TagSymlink), ""},
		{link("Files/junction", `C:\Windows`, ntfs.TagMountPoint), ""},
		{entry(layer.Dir, "Hives", ntfs.AttrDirectory, 0), ""},
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// layerTar is the layer as package layer writes it.
func layerTar(t *testing.T, all []object) []byte {
	t.Helper()
	var out bytes.Buffer
	w := layer.NewWriter(&out)
	for _, o := range all {
		check(t, w.Write(o.Entry, strings.NewReader(o.Content)))
	}
	check(t, w.Close())
	return out.Bytes()
}

// TestWrite exports a layer as programs do it; the bytes are those of package layer.
func TestWrite(t *testing.T) {
	t.Parallel()
	all := objects(t)
	r := transfer.NewReader(func(emit transfer.Emit) error {
		for _, o := range all {
			if err := emit(o.Entry, strings.NewReader(o.Content)); err != nil {
				return err
			}
		}
		return nil
	}, nil)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for {
		name, size, info, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		check(t, backuptar.WriteTarFileFromBackupStream(w, r, name, size, info))
	}
	check(t, errors.Join(w.Close(), r.Close()))
	if diff := cmp.Diff(layerTar(t, all), out.Bytes()); diff != "" {
		t.Errorf("-package layer +backuptar:\n%s", diff)
	}
}

// TestRead imports a layer as programs do it; what the LayerWriter makes of it is what was there.
func TestRead(t *testing.T) {
	t.Parallel()
	all := objects(t)
	var got []object
	w := transfer.NewWriter(func(e *layer.Entry, content io.Reader) error {
		o := object{Entry: e}
		if content != nil {
			b, err := io.ReadAll(content)
			check(t, err)
			o.Content = string(b)
		}
		got = append(got, o)
		return nil
	}, t.TempDir())
	r := tar.NewReader(bytes.NewReader(layerTar(t, all)))
	hdr, err := r.Next()
	for err == nil {
		name, size, info, e := backuptar.FileInfoFromHeader(hdr)
		check(t, e)
		if hdr.Typeflag == tar.TypeReg && size != hdr.Size {
			t.Errorf("%s has size %d, want %d", name, size, hdr.Size)
		}
		check(t, w.Add(name, info))
		hdr, err = backuptar.WriteBackupStreamFromTarFile(w, r, hdr)
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	check(t, w.Close())
	if diff := cmp.Diff(all, got, cmpopts.IgnoreUnexported(layer.Entry{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	info := &winio.FileBasicInfo{}
	wci, err := ntfs.WCI{Version: 1, Path: "x"}.Reparse(ntfs.TagWCI1)
	check(t, err)
	buf, err := wci.Append(nil)
	check(t, err)
	var reparse, short bytes.Buffer
	check(t, ntfs.NewBackupWriter(&reparse).WriteStream(ntfs.StreamReparse, buf))
	check(t, ntfs.NewBackupWriter(&short).WriteStream(ntfs.StreamData, []byte("abc")))
	for _, c := range []struct {
		name   string
		stream []byte
		size   int64
		class  error
	}{
		{"reparse point of the container filter", reparse.Bytes(), 0, errdefs.ErrNotImplemented},
		{"no content", nil, 3, errdefs.ErrDataLoss},
		{"too much content", short.Bytes(), 2, errdefs.ErrInvalidArgument},
		{"garbage", []byte("garbage"), 0, ntfs.ErrFormat},
	} {
		err := backuptar.WriteTarFileFromBackupStream(tar.NewWriter(io.Discard), bytes.NewReader(c.stream), `Files\x`, c.size, info)
		if !errors.Is(err, c.class) {
			t.Errorf("%s: %v, want %v", c.name, err, c.class)
		}
	}
	for key, value := range map[string]string{
		"MSWINDOWS.fileattr": "x", "LIBARCHIVE.creationtime": "1.x", "MSWINDOWS.rawsd": "*", "MSWINDOWS.sd": "O:??", "MSWINDOWS.xattr.A": "*",
	} {
		hdr := &tar.Header{Typeflag: tar.TypeReg, Name: "x", PAXRecords: map[string]string{key: value}}
		_, _, _, err := backuptar.FileInfoFromHeader(hdr)
		if err == nil {
			_, err = backuptar.WriteBackupStreamFromTarFile(io.Discard, tar.NewReader(strings.NewReader("")), hdr)
		}
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s=%s: %v", key, value, err)
		}
	}
}

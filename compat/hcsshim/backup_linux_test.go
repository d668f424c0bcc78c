package hcsshim_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/compat/hcsshim"
	"github.com/hostcompute/hcs/compat/hcsshim/pkg/ociwclayer"
	"github.com/hostcompute/hcs/compat/hcsshim/winio"
	"github.com/hostcompute/hcs/ntfs"
)

// stream is one stream of a backup stream.
type stream struct {
	Header ntfs.BackupHeader
	Data   string
}

func plain(id ntfs.StreamID, data string) stream {
	return stream{ntfs.BackupHeader{ID: id, Size: int64(len(data))}, data}
}

func alternate(name, data string) stream {
	return stream{*ntfs.AlternateHeader(name, int64(len(data))), data}
}

// sparse is a stream with one run of data at an offset, in a size.
func sparse(h ntfs.BackupHeader, offset int64, data string, size int64) []stream {
	h.Size, h.Attributes = 0, ntfs.StreamSparse
	block := ntfs.BackupHeader{ID: ntfs.StreamSparseBlock, Attributes: ntfs.StreamSparse, Offset: offset, Size: int64(len(data))}
	end := ntfs.BackupHeader{ID: ntfs.StreamSparseBlock, Attributes: ntfs.StreamSparse, Offset: size}
	return []stream{{h, ""}, {block, data}, {end, ""}}
}

func backupStream(t *testing.T, streams []stream) []byte {
	t.Helper()
	var out bytes.Buffer
	w := ntfs.NewBackupWriter(&out)
	for _, s := range streams {
		check(t, w.WriteHeader(&s.Header))
		_, err := io.WriteString(w, s.Data)
		check(t, err)
	}
	check(t, w.Close())
	return out.Bytes()
}

func readStreams(t *testing.T, r io.Reader) (all []stream) {
	t.Helper()
	b := ntfs.NewBackupReader(r)
	for h, err := range b.Streams() {
		check(t, err)
		data, err := io.ReadAll(b)
		check(t, err)
		all = append(all, stream{*h, string(data)})
	}
	return all
}

func reparse(t *testing.T, p ntfs.Reparse) string {
	t.Helper()
	b, err := p.Append(nil)
	check(t, err)
	return string(b)
}

// whole is a file or directory as a backup stream tells it.
type whole struct {
	Attributes uint32
	Streams    []stream
}

// everyStream has each kind of stream, those that a tar stream cannot tell included.
func everyStream(t *testing.T) map[string]whole {
	t.Helper()
	d, err := ntfs.ParseSDDL("O:BAG:SYD:(A;OICI;FA;;;BA)")
	check(t, err)
	sd, err := d.Append(nil)
	check(t, err)
	ea, err := ntfs.AppendEA(nil, []ntfs.EA{{Name: "$KERNEL.PURGE", Flags: 0x80, Value: []byte("x")}, {Name: "A", Value: []byte{0, 1}}})
	check(t, err)
	wci, err := ntfs.WCI{Version: 1, Path: `Windows\notepad.exe`}.Reparse(ntfs.TagWCI1)
	check(t, err)
	link, err := ntfs.Link{Tag: ntfs.TagMountPoint, SubstituteName: `\??\C:\Windows`}.Append(nil) // as PowerShell makes junctions
	check(t, err)
	security := plain(ntfs.StreamSecurity, string(sd))
	return map[string]whole{
		`Files`: {0x10, []stream{security}},
		`Files\all`: {0x20, []stream{
			security, plain(ntfs.StreamEA, string(ea)), plain(ntfs.StreamObjectID, strings.Repeat("o", 64)),
			{ntfs.BackupHeader{ID: ntfs.StreamLink, Attributes: ntfs.StreamModifiedWhenRead, Size: 4}, "link"},
			plain(ntfs.StreamProperty, "property"), plain(ntfs.StreamTransaction, strings.Repeat("t", 5000)),
			plain(ntfs.StreamData, "content"), alternate("Zone.Identifier", "[ZoneTransfer]"), alternate("empty", ""),
		}},
		`Files\dir`: {0x10 | 0x2000, []stream{security, alternate("of a directory", "x")}},
		`Files\dir\sparse`: {0x200, append(
			sparse(ntfs.BackupHeader{ID: ntfs.StreamData}, 65536, "data", 1<<20),
			sparse(*ntfs.AlternateHeader("holes", 0), 0, "x", 100_000)...)},
		`Files\junction`:  {0x410, []stream{security, plain(ntfs.StreamReparse, string(link))}},
		`Files\wci`:       {0x620, []stream{security, plain(ntfs.StreamReparse, reparse(t, wci)), plain(ntfs.StreamData, "placeholder")}},
		`Files\wcidir`:    {0x410, []stream{plain(ntfs.StreamReparse, reparse(t, wci))}},
		`Files\wcidir\in`: {0x80, nil},
		`Hives`:           {0x10, nil},
	}
}

// TestEveryStream writes every kind of stream with a LayerWriter and reads them with a LayerReader.
func TestEveryStream(t *testing.T) {
	t.Parallel()
	info := hcsshim.DriverInfo{HomeDir: t.TempDir()}
	want := everyStream(t)
	order := []string{
		`Files`, `Files\all`, `Files\dir`, `Files\dir\sparse`, `Files\junction`, `Files\wci`, `Files\wcidir`, `Files\wcidir\in`, `Hives`,
	}
	at := winio.NewFiletime(time.Date(2021, 3, 4, 5, 6, 7, 800, time.UTC))
	parents := []string{t.TempDir()} // a layer without any is a base layer, which has more in it
	w, err := hcsshim.NewLayerWriter(info, "layer", parents)
	check(t, err)
	for _, name := range order {
		check(t, w.Add(name, &winio.FileBasicInfo{
			CreationTime: at, LastAccessTime: at, LastWriteTime: at, ChangeTime: at, FileAttributes: want[name].Attributes,
		}))
		_, err := w.Write(backupStream(t, want[name].Streams))
		check(t, err)
	}
	check(t, w.Close())

	got := make(map[string]whole)
	r, err := hcsshim.NewLayerReader(info, "layer", parents)
	check(t, err)
	for {
		name, _, basic, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		if basic.CreationTime != at || basic.LastWriteTime != at || basic.ChangeTime != at {
			t.Errorf("%s has other times: %v", name, basic)
		}
		got[name] = whole{basic.FileAttributes, readStreams(t, r)}
	}
	check(t, r.Close())
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	var out bytes.Buffer
	err = ociwclayer.ExportLayerToTar(t.Context(), &out, info.HomeDir+"/layer", nil)
	if err == nil || !strings.Contains(err.Error(), `Files/wci`) {
		t.Errorf("a tar stream of a reparse point that it has no form for: %v", err)
	}
}

// TestDamagedBackupStreams writes what is no backup stream of a file: nothing stays of the layer.
func TestDamagedBackupStreams(t *testing.T) {
	t.Parallel()
	info := hcsshim.DriverInfo{HomeDir: t.TempDir()}
	for name, damaged := range map[string][]byte{
		"cut":             backupStream(t, []stream{plain(ntfs.StreamData, "content")})[:25],
		"two of content":  backupStream(t, []stream{plain(ntfs.StreamData, "a"), plain(ntfs.StreamData, "b")}),
		"two descriptors": backupStream(t, []stream{plain(ntfs.StreamSecurity, "a"), plain(ntfs.StreamSecurity, "b")}),
		"no descriptor":   backupStream(t, []stream{plain(ntfs.StreamSecurity, "this is none")}),
		"two streams":     backupStream(t, []stream{alternate("a", "1"), alternate("A", "2")}),
		"block of none":   backupStream(t, sparse(ntfs.BackupHeader{ID: ntfs.StreamData}, 5, "x", 9)[1:]),
		"stream's name":   backupStream(t, []stream{alternate("a:b", "1")}),
	} {
		w, err := hcsshim.NewLayerWriter(info, "layer", nil)
		check(t, err)
		check(t, w.Add(`Files`, &winio.FileBasicInfo{FileAttributes: 0x10}))
		check(t, w.Add(`Files\bad`, &winio.FileBasicInfo{FileAttributes: 0x20}))
		_, err = w.Write(damaged)
		check(t, err)
		if err := w.Close(); code(err) != 0x57 || !strings.Contains(err.Error(), "Files/bad") {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(info.HomeDir); err != nil || len(left) > 0 {
			t.Errorf("%s left %v, %v", name, left, err)
		}
	}
}

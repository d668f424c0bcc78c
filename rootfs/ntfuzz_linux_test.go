package rootfs_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/s2"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// FuzzNTMeta puts anything into the attribute with a file's metadata, and into the file that metadata is spilled to.
func FuzzNTMeta(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "layer")
	r := layer.ReadOptions{Encoding: layer.NT}.NewReader(bytes.NewReader(sturdyLayer(f)))
	_, err := rootfs.ImportNT(f.Context(), dir, nil, r, ntOptions())
	must(f, err)
	name, attr := filepath.Join(dir, "Files", "spilled"), "trusted.hcs.nt"
	if ntOptions().UserXattr {
		attr = "user.hcs.nt"
	}
	file, err := os.Open(name)
	must(f, err)
	f.Cleanup(func() { must(f, file.Close()) })
	for _, other := range []string{"spilled", "attributes", "Windows"} {
		o, err := os.Open(filepath.Join(dir, "Files", other))
		must(f, err)
		value, err := sys.GetXattrFD(int(o.Fd()), attr)
		must(f, errors.Join(err, o.Close()))
		f.Add([]byte(value), []byte(nil))
		f.Add([]byte(value[:24]), []byte(value[24:]))
	}
	f.Fuzz(func(t *testing.T, value, spilled []byte) {
		if len(value) > 3000 {
			return // more than ext4 keeps
		}
		if len(value) >= 24 && len(spilled) > 0 {
			sum := sha256.Sum256(spilled)
			value = append(bytes.Clone(value[:24]), sum[:]...)
			value[1] |= 1
			kept := filepath.Join(dir, "Metadata", hex.EncodeToString(sum[:]))
			must(t, os.WriteFile(kept, spilled, 0o600))
			defer os.Remove(kept)
		}
		must(t, sys.SetXattrFD(int(file.Fd()), attr, string(value)))
		e, content, err := rootfs.OpenNT([]string{dir}, "Files/spilled")
		if err != nil {
			if !errdefs.IsDataLoss(err) && !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("the error has no class: %v", err)
			}
			return
		}
		must(t, content.Close())
		if e.NT == nil {
			t.Fatal("no metadata, and no error")
		}
	})
}

// FuzzNTHeaders puts anything into the stream of a stored layer.
func FuzzNTHeaders(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "layer")
	r := layer.ReadOptions{Encoding: layer.NT}.NewReader(bytes.NewReader(sturdyLayer(f)))
	_, err := rootfs.ImportNT(f.Context(), dir, nil, r, ntOptions())
	must(f, err)
	name := filepath.Join(dir, "headers.s2")
	packed, err := os.Open(name)
	must(f, err)
	stream, err := io.ReadAll(s2.NewReader(packed))
	must(f, errors.Join(err, packed.Close()))
	record, err := os.ReadFile(filepath.Join(dir, "layer.json"))
	must(f, err)
	f.Add(stream, record, false)
	f.Add(stream, []byte(strings.Replace(string(record), `"entries"`, `"whole": true, "entries"`, 1)), false)
	f.Add([]byte("\xff\x06\x00\x00S2sTwO"), record, true)
	f.Fuzz(func(t *testing.T, stream, record []byte, raw bool) {
		if !raw {
			var b bytes.Buffer
			w := s2.NewWriter(&b)
			_, err := w.Write(stream)
			must(t, errors.Join(err, w.Close()))
			stream = b.Bytes()
		}
		must(t, os.WriteFile(name, stream, 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "layer.json"), record, 0o600))
		err := rootfs.ExportNT(t.Context(), dir, func(e *layer.Entry, content io.Reader) error {
			if e.Kind == layer.File && content == nil {
				t.Fatalf("%s has no content", e.Name)
			}
			return nil
		})
		if err != nil && !strings.HasPrefix(err.Error(), "export layer "+dir) {
			t.Fatal(err)
		}
	})
}

// Command mkimage writes an OCI layout with one image of one layer, for tests and the demo. It shares no code with the
// packages that read its output, and is not for other use: hcs makes images.
//
//	mkimage -cmd /bin/sh DIR layer.tar TAG=layer.tar.gz [TAG=layer.tar.zst]...
//
// Each tag is an image whose layer is the given file, a compression of layer.tar as its name's end says.
package main

import (
	_ "crypto/sha256" // go-digest computes only what is linked in
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func main() {
	cmd := flag.String("cmd", "/bin/sh", "the image's command")
	flag.Parse()
	if flag.NArg() < 3 {
		fmt.Fprintln(os.Stderr, "usage: mkimage [-cmd CMD] DIR LAYER.tar TAG=LAYER-FILE...")
		os.Exit(2)
	}
	if err := makeLayout(flag.Arg(0), flag.Arg(1), *cmd, flag.Args()[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

type layout struct {
	dir   string
	index v1.Index
}

func makeLayout(dir, tar, cmd string, tags []string) error {
	l := &layout{dir: dir, index: v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageIndex,
	}}
	return l.fill(tar, cmd, tags)
}

func (l *layout) fill(tar, cmd string, tags []string) error {
	if err := os.MkdirAll(filepath.Join(l.dir, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	diffID, _, err := digestFile(tar)
	if err != nil {
		return err
	}
	for _, t := range tags {
		tag, file, ok := strings.Cut(t, "=")
		if !ok {
			return fmt.Errorf("read argument %q: want TAG=LAYER-FILE", t)
		}
		if err := l.addImage(tag, file, cmd, diffID); err != nil {
			return fmt.Errorf("add image %s: %w", tag, err)
		}
	}
	if err := l.writeJSON(v1.ImageLayoutFile, v1.ImageLayout{Version: v1.ImageLayoutVersion}); err != nil {
		return err
	}
	return l.writeJSON(v1.ImageIndexFile, l.index)
}

func (l *layout) addImage(tag, file, cmd string, diffID digest.Digest) error {
	layer, err := l.addLayer(file)
	if err != nil {
		return err
	}
	config, err := l.addBlob(v1.MediaTypeImageConfig, v1.Image{
		Platform: v1.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config: v1.ImageConfig{
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Cmd: []string{cmd},
		},
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
		History: []v1.History{{CreatedBy: "scripts/images.sh"}},
	})
	if err != nil {
		return err
	}
	manifest, err := l.addBlob(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    config,
		Layers:    []v1.Descriptor{layer},
	})
	if err != nil {
		return err
	}
	manifest.Platform = &v1.Platform{Architecture: runtime.GOARCH, OS: "linux"}
	manifest.Annotations = map[string]string{v1.AnnotationRefName: tag}
	l.index.Manifests = append(l.index.Manifests, manifest)
	return nil
}

func (l *layout) addLayer(file string) (v1.Descriptor, error) {
	sum, size, err := digestFile(file)
	if err != nil {
		return v1.Descriptor{}, err
	}
	mediaType := v1.MediaTypeImageLayer
	switch filepath.Ext(file) {
	case ".gz":
		mediaType = v1.MediaTypeImageLayerGzip
	case ".zst":
		mediaType = v1.MediaTypeImageLayerZstd
	}
	return v1.Descriptor{MediaType: mediaType, Digest: sum, Size: size}, copyFile(file, l.blob(sum))
}

func (l *layout) addBlob(mediaType string, content any) (v1.Descriptor, error) {
	data, err := json.Marshal(content)
	if err != nil {
		return v1.Descriptor{}, err
	}
	sum := digest.FromBytes(data)
	d := v1.Descriptor{MediaType: mediaType, Digest: sum, Size: int64(len(data))}
	return d, os.WriteFile(l.blob(sum), data, 0o644)
}

func (l *layout) writeJSON(name string, content any) error {
	data, err := json.Marshal(content)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, name), data, 0o644)
}

func (l *layout) blob(sum digest.Digest) string {
	return filepath.Join(l.dir, "blobs", "sha256", sum.Encoded())
}

func digestFile(name string) (digest.Digest, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	digester := digest.Canonical.Digester()
	size, err := io.Copy(digester.Hash(), f)
	return digester.Digest(), size, err
}

// copyFile does not link: a test that damages a blob must not damage the cache.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

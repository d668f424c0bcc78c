package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/internal/temporary"
)

// removeEmpty removes a directory if there is nothing in it.
func removeEmpty(dir string) { _ = os.Remove(dir) }

// An archiveTarget writes an OCI archive, or a docker archive, which is an
// OCI archive with a manifest.json.
type archiveTarget struct {
	ref     Ref
	file    *os.File
	work    *temporary.Dir // that file is in until it is renamed; nil where it is written in its place
	tar     *tar.Writer
	written map[string]bool
	index   []v1.Descriptor
	docker  []dockerImage
	done    bool
}

func createArchive(ctx context.Context, ref Ref) (*archiveTarget, error) {
	t := &archiveTarget{ref: ref, written: map[string]bool{}}
	var err error
	info, serr := os.Stat(ref.Path)
	switch {
	case serr == nil && info.IsDir():
		return nil, invalid("%s is a directory", ref.Path)
	case serr == nil && !info.Mode().IsRegular():
		t.file, err = os.OpenFile(ref.Path, os.O_WRONLY, 0)
	default:
		err = t.createAside(ctx)
	}
	if err != nil {
		return nil, err
	}
	t.tar = tar.NewWriter(t.file)
	return t, nil
}

// createAside makes the file in a directory beside its place. What calls that
// were killed have left there goes.
func (t *archiveTarget) createAside(ctx context.Context) error {
	work, err := temporary.New(ctx, temporary.Config{Parent: filepath.Dir(t.ref.Path), Prefix: ".hcs-archive-"})
	if err != nil {
		return err
	}
	if t.file, err = os.OpenFile(work.Path("archive"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return errors.Join(err, work.Remove())
	}
	t.work = work
	return nil
}

func (t *archiveTarget) isDocker() bool { return t.ref.Transport == TransportDockerArchive }

func (t *archiveTarget) Add(ctx context.Context, src Source, img *Image, tag string) error {
	if t.isDocker() && tag != "" {
		var err error
		if tag, err = NormalName(tag); err != nil {
			return err
		}
	}
	for _, desc := range img.blobs() {
		if err := t.blob(ctx, src, desc); err != nil {
			return err
		}
	}
	if t.isDocker() {
		t.addDocker(img, tag)
		return nil
	}
	t.index = setTag(t.index, img.entry(tag))
	return nil
}

func (t *archiveTarget) AddTree(ctx context.Context, src Source, tree *Tree, tag string) error {
	if t.isDocker() {
		return invalid("a docker archive has images for one platform each")
	}
	for _, desc := range tree.Blobs() {
		if err := t.blob(ctx, src, desc); err != nil {
			return err
		}
	}
	for _, n := range tree.Nodes {
		name := blobName(n.Descriptor.Digest)
		if t.written[name] {
			continue
		}
		if err := t.header(name, int64(len(n.Raw))); err != nil {
			return err
		}
		if _, err := t.tar.Write(n.Raw); err != nil {
			return err
		}
	}
	t.index = setTag(t.index, tree.entry(tag))
	return nil
}

// addDocker lists an image in both of a docker archive's tables of contents.
// In index.json containerd, and with it newer docker, wants the full name in
// an annotation of its own, and the tag alone in the image specification's.
func (t *archiveTarget) addDocker(img *Image, name string) {
	entry := img.entry("")
	if name != "" {
		entry.Annotations = map[string]string{
			annotationName:       fullName(name),
			v1.AnnotationRefName: name[strings.LastIndexByte(name, ':')+1:],
		}
	}
	t.index = append(t.index, entry)
	config := blobName(img.Manifest.Config.Digest)
	layers := []string{}
	for _, l := range img.Manifest.Layers {
		layers = append(layers, blobName(l.Digest))
	}
	i := slices.IndexFunc(t.docker, func(d dockerImage) bool { return d.Config == config && slices.Equal(d.Layers, layers) })
	if i < 0 {
		t.docker = append(t.docker, dockerImage{Config: config, Layers: layers})
		i = len(t.docker) - 1
	}
	if name != "" {
		t.docker[i].RepoTags = append(t.docker[i].RepoTags, name)
	}
}

// fullName adds what shortName removes.
func fullName(name string) string {
	first, _, found := strings.Cut(name, "/")
	switch {
	case !found:
		return "docker.io/library/" + name
	case first == "localhost" || strings.ContainsAny(first, ".:") || first != strings.ToLower(first):
		return name
	}
	return "docker.io/" + name
}

func (t *archiveTarget) blob(ctx context.Context, src Source, desc v1.Descriptor) error {
	if err := checkDescriptor(desc); err != nil {
		return err
	}
	name := blobName(desc.Digest)
	if t.written[name] {
		return nil
	}
	blob, err := src.Blob(ctx, desc)
	if err != nil {
		return err
	}
	defer blob.Close()
	if err := t.header(name, desc.Size); err != nil {
		return err
	}
	if err := copyContext(ctx, t.tar, blob, nil); err != nil {
		return fmt.Errorf("copy blob %s: %w", desc.Digest, err)
	}
	return nil
}

// header begins a file. Everything about it but name and size is constant, so
// that equal images make equal archives.
func (t *archiveTarget) header(name string, size int64) error {
	var dir strings.Builder
	for part := range strings.SplitSeq(name[:strings.LastIndexByte(name, '/')+1], "/") {
		if part == "" {
			continue
		}
		dir.WriteString(part + "/")
		if t.written[dir.String()] {
			continue
		}
		t.written[dir.String()] = true
		if err := t.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir.String(), Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
	}
	t.written[name] = true
	return t.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)})
}

func (t *archiveTarget) json(name string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := t.header(name, int64(len(raw))); err != nil {
		return err
	}
	_, err = t.tar.Write(raw)
	return err
}

func (t *archiveTarget) Commit(context.Context) error {
	err := errors.Join(
		t.json(v1.ImageIndexFile, newIndex(t.index)),
		t.json(v1.ImageLayoutFile, v1.ImageLayout{Version: v1.ImageLayoutVersion}),
	)
	if t.isDocker() {
		if t.docker == nil {
			t.docker = []dockerImage{}
		}
		err = errors.Join(err, t.json(dockerManifestFile, t.docker))
	}
	if err = errors.Join(err, t.tar.Close()); err != nil {
		return err
	}
	return t.publish()
}

func (t *archiveTarget) publish() error {
	t.done = true
	if t.work == nil {
		return t.file.Close()
	}
	err := t.file.Chmod(0o644)
	if err == nil {
		err = t.file.Sync()
	}
	err = errors.Join(err, t.file.Close())
	if err == nil {
		err = os.Rename(t.file.Name(), t.ref.Path)
	}
	if err = errors.Join(err, t.work.Remove()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(t.ref.Path))
}

func (t *archiveTarget) Close() error {
	if t.done {
		return nil
	}
	t.done = true
	err := t.file.Close()
	if t.work != nil {
		err = errors.Join(err, t.work.Remove())
	}
	return err
}

package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	errMoved  = errors.New("the file has got another name")
	errStored = errors.New("the blob is stored already")
)

// takeTemp opens a temporary file of that name and locks it with lock. What
// a dead writer left under the name is taken over, with its content. It
// returns errMoved if the file's last holder has renamed or removed it
// meanwhile.
func (l *layout) takeTemp(name string, lock func(*os.File) error) (*os.File, error) {
	path := l.tempPath(name)
	f, err := openOwn(path)
	for errors.Is(err, fs.ErrNotExist) { // more than once where others remove the directory, which is empty, meanwhile
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if err := l.checkDirs(); err != nil { // a link that leads nowhere exists, too
			return nil, err
		}
		f, err = openOwn(path)
	}
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	if !sameFile(f, path) {
		_ = f.Close()
		return nil, errMoved
	}
	return f, nil
}

func waiting(ctx context.Context) func(*os.File) error {
	return func(f *os.File) error { return lockContext(ctx, f, lockExclusive) }
}

func trying(f *os.File) error { return tryLock(f, lockExclusive) }

// openTemp takes a temporary file, waiting for whoever holds it.
func (l *layout) openTemp(ctx context.Context, name string) (*os.File, error) {
	for {
		f, err := l.takeTemp(name, waiting(ctx))
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := f.Truncate(0); err != nil {
			_ = f.Close()
			return nil, err
		}
		return f, nil
	}
}

// An ingest writes one blob: into a temporary file named for the digest, so
// that only one writer at a time, of any process, writes a blob. publish
// gives the file its name, abort removes it.
type ingest struct {
	layout *layout
	file   *os.File
	check  checker

	keep  bool  // abort leaves the file for the next who resumes
	kept  int64 // bytes in the file that are yet to be written again
	wrong bool  // the content is not the blob's
}

// ingest begins to write a blob. It returns errStored if there is nothing to
// write, and what lock returns (errLocked) if somebody else is at it.
func (l *layout) ingest(desc v1.Descriptor, lock func(*os.File) error) (*ingest, error) {
	in, err := l.resume(desc, lock)
	if err != nil {
		return nil, err
	}
	in.keep = false
	if err := in.restart(); err != nil {
		return nil, errors.Join(err, in.abort())
	}
	return in, nil
}

// resume is ingest that goes on where the blob's last writer stopped: what is
// written again of the kept bytes is checked and not written.
func (l *layout) resume(desc v1.Descriptor, lock func(*os.File) error) (*ingest, error) {
	name := strings.Replace(string(desc.Digest), ":", "-", 1)
	for {
		if l.has(desc) {
			return nil, errStored
		}
		f, err := l.takeTemp(name, lock)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return nil, err
		}
		in := &ingest{layout: l, file: f, check: newChecker(desc)}
		if l.has(desc) {
			return nil, errors.Join(errStored, in.abort())
		}
		in.keep = true
		in.kept, err = f.Seek(0, io.SeekEnd)
		if err == nil && in.kept > desc.Size {
			err = in.restart()
		}
		if err != nil {
			return nil, errors.Join(err, in.abort())
		}
		return in, nil
	}
}

// restart drops what was kept.
func (in *ingest) restart() error {
	if in.kept == 0 {
		return nil
	}
	in.kept = 0
	err := in.file.Truncate(0)
	if err == nil {
		_, err = in.file.Seek(0, io.SeekStart)
	}
	return err
}

func (in *ingest) Write(p []byte) (int, error) {
	if err := in.check.add(p); err != nil {
		in.wrong = true
		return 0, err
	}
	again := min(in.kept, int64(len(p)))
	in.kept -= again
	n, err := in.file.Write(p[again:])
	return int(again) + n, err
}

// verdict says whether all of the blob was written, and nothing else.
func (in *ingest) verdict() error {
	err := in.check.verdict()
	in.wrong = in.wrong || err != nil && in.check.n >= in.check.desc.Size
	return err
}

// publish makes the blob visible if it is what its descriptor says.
func (in *ingest) publish() error {
	if err := in.verdict(); err != nil {
		return errors.Join(err, in.abort())
	}
	return in.layout.publish(in.file, in.check.desc.Digest)
}

func (in *ingest) abort() error {
	if in.keep && !in.wrong {
		return in.file.Close()
	}
	return discard(in.file)
}

// publish gives a complete temporary file its name among the blobs.
func (l *layout) publish(f *os.File, d digest.Digest) error {
	path := l.blobPath(d)
	err := f.Sync()
	if err == nil {
		err = os.Rename(f.Name(), path)
		if errors.Is(err, fs.ErrNotExist) {
			if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
				err = os.Rename(f.Name(), path)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("write blob %s: %w", d, errors.Join(err, discard(f)))
	}
	return f.Close()
}

// discard removes a temporary file while its lock is held.
func discard(f *os.File) error {
	return errors.Join(os.Remove(f.Name()), f.Close())
}

// put stores a small blob.
func (l *layout) put(ctx context.Context, desc v1.Descriptor, raw []byte) error {
	return l.copyBlob(ctx, desc, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }, nil)
}

// copyBlob stores a blob unless it is stored. It waits for another writer of
// the same blob and then uses what that one wrote.
func (l *layout) copyBlob(ctx context.Context, desc v1.Descriptor, open func() (io.ReadCloser, error), progress func(int64)) error {
	if err := checkDescriptor(desc); err != nil {
		return err
	}
	in, err := l.ingest(desc, waiting(ctx))
	if errors.Is(err, errStored) {
		if progress != nil {
			progress(desc.Size)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("write blob %s: %w", desc.Digest, err)
	}
	return in.fill(ctx, open, progress)
}

// fill writes the blob that open gives, and publishes it.
func (in *ingest) fill(ctx context.Context, open func() (io.ReadCloser, error), progress func(int64)) error {
	r, err := open()
	if err != nil {
		return errors.Join(err, in.abort())
	}
	defer r.Close()
	if err := copyContext(ctx, in, r, progress); err != nil {
		return fmt.Errorf("copy blob %s: %w", in.check.desc.Digest, errors.Join(err, in.abort()))
	}
	return in.publish()
}

// openRest opens a blob whose beginning may have been kept: that comes from
// the file, if the source can give the rest alone.
func (in *ingest) openRest(ctx context.Context, src Source) (io.ReadCloser, error) {
	c, ok := src.(*checked)
	if in.kept == 0 || !ok {
		return openRaw(ctx, src, in.check.desc)
	}
	if err := checkDescriptor(in.check.desc); err != nil {
		return nil, err
	}
	rest, err := c.OpenAt(ctx, in.check.desc, in.kept)
	if err != nil {
		return nil, err
	}
	return &joined{io.MultiReader(io.NewSectionReader(in.file, 0, in.kept), rest), rest}, nil
}

// joined reads from several readers, one of which is to be closed.
type joined struct {
	io.Reader
	io.Closer
}

// syncBlobs makes the names of published blobs durable.
func (l *layout) syncBlobs() error {
	dirs, err := os.ReadDir(l.blobsDir())
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if err := syncDir(filepath.Join(l.blobsDir(), d.Name())); err != nil {
			return err
		}
	}
	return nil
}

// newTemp opens a temporary file for content whose digest is not known yet.
func (l *layout) newTemp(ctx context.Context) (*os.File, error) {
	return l.openTemp(ctx, "new-"+rand.Text())
}

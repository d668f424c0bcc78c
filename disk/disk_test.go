package disk_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/Microsoft/go-winio/pkg/guid"
	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/disk"
)

const mib = 1 << 20

var kinds = []disk.Options{
	{Format: disk.Raw},
	{Format: disk.FixedVHD},
	{Format: disk.DynamicVHD},
	{Format: disk.DynamicVHD, BlockSize: mib / 2},
	{Format: disk.FixedVHDX, BlockSize: mib},
	{Format: disk.DynamicVHDX, BlockSize: mib},
	{Format: disk.DynamicVHDX, BlockSize: 4 * mib, SectorSize: 4096},
	{Format: disk.DynamicVHDX},
}

// TestModel writes, reopens, grows and reads disks of every format as if they were slices.
func TestModel(t *testing.T) {
	t.Parallel()
	for _, o := range kinds {
		t.Run(name(o), func(t *testing.T) {
			t.Parallel()
			o.Size, o.Rand, o.Time = 13*mib+8192, seeded(1), time.Unix(1.7e9, 0)
			var f memory
			d := mustDisk(t)(disk.Create(&f, o))
			model := make([]byte, o.Size)
			r := rand.New(rand.NewPCG(1, 2))
			for round := range 6 {
				scribble(t, r, d, model, 12)
				wantBytes(t, "before it is closed", contents(t, d), model)
				if round%2 == 1 {
					size := int64(len(model)) + int64(1+r.IntN(3*mib))/4096*4096
					must(t, d.Resize(size))
					model = append(model, make([]byte, size-int64(len(model)))...)
					scribble(t, r, d, model, 3)
				}
				if round%3 == 1 {
					must(t, d.Sync())
					scribble(t, r, d, model, 3)
				}
				must(t, d.Close())
				read := mustDisk(t)(disk.Open(&f, f.size, disk.OpenOptions{}))
				wantBytes(t, "read", contents(t, read), model)
				if i := read.Info(); i.Format != o.Format || i.Size != int64(len(model)) || i.Replayed {
					t.Fatalf("got %+v", i)
				}
				checkExtents(t, read, model)
				if _, err := read.WriteAt([]byte{1}, 0); !errors.Is(err, errdefs.ErrPermissionDenied) {
					t.Fatalf("write to what is only read: %v", err)
				}
				d = mustDisk(t)(disk.OpenToWrite(&f, f.size, disk.OpenOptions{Rand: seeded(2)}))
			}
		})
	}
}

// checkExtents checks that what lies between extents is zero.
func checkExtents(t *testing.T, d *disk.Disk, model []byte) {
	t.Helper()
	last := int64(0)
	for x, err := range d.Extents() {
		must(t, err)
		if x.Offset < last || x.Length <= 0 || x.Offset+x.Length > int64(len(model)) {
			t.Fatalf("extent %+v after %d", x, last)
		}
		if len(bytes.Trim(model[last:x.Offset], "\x00")) > 0 {
			t.Fatalf("data from %d to %d is in no extent", last, x.Offset)
		}
		last = x.Offset + x.Length
	}
	if len(bytes.Trim(model[last:], "\x00")) > 0 {
		t.Fatalf("data from %d is in no extent", last)
	}
}

// TestDeterministic: equal inputs make equal bytes.
func TestDeterministic(t *testing.T) {
	t.Parallel()
	for _, o := range kinds {
		var images [2]memory
		for i := range images {
			o.Size, o.Rand, o.Time = 9*mib, seeded(3), time.Unix(1.7e9, 0)
			d := mustDisk(t)(disk.Create(&images[i], o))
			scribble(t, rand.New(rand.NewPCG(7, 7)), d, make([]byte, o.Size), 20)
			must(t, d.Close())
		}
		wantBytes(t, name(o), images[0].bytes(), images[1].bytes())
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	for _, o := range kinds {
		o.Size = 2 * mib
		var f memory
		d := mustDisk(t)(disk.Create(&f, o))
		if _, err := d.WriteAt(make([]byte, 2), 2*mib-1); !errors.Is(err, errdefs.ErrOutOfRange) {
			t.Errorf("%s: write beyond the end: %v", name(o), err)
		}
		if n, err := d.ReadAt(make([]byte, 2), 2*mib-1); n != 1 || !errors.Is(err, io.EOF) {
			t.Errorf("%s: read beyond the end: %d, %v", name(o), n, err)
		}
		if err := d.Resize(mib); !errors.Is(err, errdefs.ErrNotImplemented) {
			t.Errorf("%s: shrink: %v", name(o), err)
		}
	}
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	for what, o := range map[string]disk.Options{
		"half a sector":         {Format: disk.DynamicVHDX, Size: 100},
		"no size":               {Format: disk.DynamicVHDX},
		"block size":            {Format: disk.DynamicVHDX, Size: mib, BlockSize: 3 * mib},
		"small blocks":          {Format: disk.DynamicVHDX, Size: mib, BlockSize: 4096},
		"sector size":           {Format: disk.DynamicVHDX, Size: mib, SectorSize: 1024},
		"too large":             {Format: disk.DynamicVHDX, Size: 65 << 40},
		"VHD too large":         {Format: disk.DynamicVHD, Size: 2041 << 30},
		"VHD with 4K":           {Format: disk.DynamicVHD, Size: mib, SectorSize: 4096},
		"fixed VHD with blocks": {Format: disk.FixedVHD, Size: mib, BlockSize: mib},
		"time before":           {Format: disk.FixedVHD, Size: mib, Time: time.Unix(0, 0)},
		"child without parent":  {Format: disk.DifferencingVHDX, Size: mib},
		"parent of none":        {Format: disk.DynamicVHDX, Size: mib, ParentPaths: disk.Locator{Relative: "x"}},
		"unknown":               {Format: 99, Size: mib},
	} {
		if _, err := disk.Create(&memory{}, o); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// child makes a differencing image over the image in parent.
func child(t *testing.T, f *memory, parent *disk.Disk, o disk.Options) *disk.Disk {
	t.Helper()
	o.Format, o.Parent, o.ParentPaths, o.Rand = disk.DifferencingVHDX, parent, disk.Locator{Relative: `.\p.vhdx`}, seeded(5)
	return mustDisk(t)(disk.Create(f, o))
}

// TestChain writes to a chain of three images as if it were one.
func TestChain(t *testing.T) {
	t.Parallel()
	for _, sector := range []int64{512, 4096} {
		r := rand.New(rand.NewPCG(1, uint64(sector)))
		model := make([]byte, 21*mib+4096)
		files := make([]memory, 3)
		var id guid.GUID
		open := func(depth int, how func(*memory, disk.OpenOptions) (*disk.Disk, error)) *disk.Disk {
			var at func(int) *disk.Disk
			at = func(i int) *disk.Disk {
				o := disk.OpenOptions{Rand: seeded(8), Parent: func(disk.Locator) (*disk.Disk, error) { return at(i - 1), nil }}
				if i == depth {
					return mustDisk(t)(how(&files[i], o))
				}
				return mustDisk(t)(disk.Open(&files[i], files[i].size, o))
			}
			return at(depth)
		}
		toRead := func(f *memory, o disk.OpenOptions) (*disk.Disk, error) { return disk.Open(f, f.size, o) }
		toWrite := func(f *memory, o disk.OpenOptions) (*disk.Disk, error) { return disk.OpenToWrite(f, f.size, o) }

		d := mustDisk(t)(disk.Create(&files[0], disk.Options{
			Format: disk.DynamicVHDX, Size: int64(len(model)), BlockSize: 2 * mib, SectorSize: sector,
		}))
		scribble(t, r, d, model, 10)
		must(t, d.Close())
		for i := 1; i < 3; i++ {
			parent := open(i-1, toRead)
			id = parent.Info().DataID
			d := child(t, &files[i], parent, disk.Options{BlockSize: int64(i) * mib, SectorSize: sector})
			scribble(t, r, d, model, 20)
			wantBytes(t, "before it is closed", contents(t, d), model)
			must(t, d.Close())
			d = open(i, toWrite)
			scribble(t, r, d, model, 20)
			must(t, d.Resize(int64(len(model))+5*mib))
			model = append(model, make([]byte, 5*mib)...)
			scribble(t, r, d, model, 10)
			must(t, d.Close())
			d = open(i, toRead)
			wantBytes(t, "reopened", contents(t, d), model)
			checkExtents(t, d, model)
			if p := d.Info().Parent; p == nil || p.Linkage != id || p.Relative != `.\p.vhdx` {
				t.Errorf("got parent %+v, want %v", p, id)
			}
		}
		// A parent that changes is one no more.
		base := open(0, toWrite)
		_, err := base.WriteAt([]byte{1}, 0)
		must(t, err)
		must(t, base.Close())
		_, err = disk.Open(&files[1], files[1].size, disk.OpenOptions{Parent: func(disk.Locator) (*disk.Disk, error) {
			return disk.Open(&files[0], files[0].size, disk.OpenOptions{})
		}})
		if !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("changed parent: %v", err)
		}
	}
}

// TestCopy copies between all formats.
func TestCopy(t *testing.T) {
	t.Parallel()
	model := make([]byte, 9*mib)
	for _, from := range kinds {
		from.Size = int64(len(model))
		var src memory
		d := mustDisk(t)(disk.Create(&src, from))
		clear(model)
		scribble(t, rand.New(rand.NewPCG(2, 3)), d, model, 6)
		for _, to := range kinds {
			to.Size = from.Size
			var f memory
			c := mustDisk(t)(disk.Create(&f, to))
			must(t, disk.Copy(t.Context(), c, d, d.Size()))
			wantBytes(t, name(from)+" to "+name(to), contents(t, c), model)
			must(t, c.Close())
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("no more")
	cancel(cause)
	if err := disk.Copy(ctx, &memory{}, bytes.NewReader(model), int64(len(model))); !errors.Is(err, cause) {
		t.Errorf("cancelled: %v", err)
	}
	if err := disk.Copy(t.Context(), &memory{}, bytes.NewReader(model), int64(len(model))+1); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short source: %v", err)
	}
	large := bytes.Repeat([]byte{1}, 20*mib)
	for _, after := range []int64{0, 3 * mib, 19 * mib} { // with data read ahead, and at the end
		if err := disk.Copy(t.Context(), fullAt(after), bytes.NewReader(large), int64(len(large))); !errors.Is(err, errFull) {
			t.Errorf("full after %d bytes: %v", after, err)
		}
	}
}

var errFull = errors.New("full")

// fullAt takes what ends up to an offset.
type fullAt int64

func (f fullAt) WriteAt(b []byte, offset int64) (int, error) {
	if offset+int64(len(b)) > int64(f) {
		return 0, errFull
	}
	return len(b), nil
}

package layer_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
)

var compressions = []layer.Compression{layer.None, layer.Gzip, layer.Zstd}

// someBytes returns bytes that compress to about the half.
func someBytes(n int) []byte {
	rng := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, n)
	for i := range b {
		b[i] = "0123456789abcdef"[rng.IntN(16)]
	}
	return b
}

// largeLayer is a tar stream of a few MiB.
func largeLayer(t testing.TB) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	content := someBytes(3 << 20)
	for i := range 300 {
		n := i * i * 37 % (64 << 10)
		must(t, w.WriteHeader(&tar.Header{Name: fmt.Sprintf("dir/file%d", i), Size: int64(n), Mode: 0o644}))
		_, err := w.Write(content[i : i+n])
		must(t, err)
	}
	must(t, w.WriteHeader(&tar.Header{Name: "large", Size: int64(len(content)), Mode: 0o644}))
	_, err := w.Write(content)
	must(t, err)
	must(t, w.Close())
	return buf.Bytes()
}

func compress(t testing.TB, in []byte, c layer.Compression, piece int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := layer.Compress(&out, c)
	must(t, err)
	for len(in) > 0 {
		n := min(piece, len(in))
		_, err := w.Write(in[:n])
		must(t, err)
		in = in[n:]
	}
	must(t, w.Close())
	return out.Bytes()
}

func decompress(in io.Reader, l layer.Limits) ([]byte, layer.Compression, error) {
	r, c, err := layer.Decompress(in, l)
	if err != nil {
		return nil, c, err
	}
	defer r.Close()
	out, err := io.ReadAll(r)
	return out, c, err
}

// TestCompressIsDeterministic changes GOMAXPROCS, and so runs alone.
func TestCompressIsDeterministic(t *testing.T) {
	in := someBytes(10 << 20) // more than one of the parts that are compressed at once
	for _, c := range compressions {
		var first []byte
		for _, procs := range []int{1, 3} {
			for _, piece := range []int{100_003, len(in)} {
				old := runtime.GOMAXPROCS(procs)
				out := compress(t, in, c, piece)
				runtime.GOMAXPROCS(old)
				if first == nil {
					first = out
				}
				if !bytes.Equal(first, out) {
					t.Errorf("%s: other bytes with %d processors and writes of %d", c, procs, piece)
				}
			}
		}
		out, got, err := decompress(bytes.NewReader(first), layer.Limits{})
		if err != nil || got != c || !bytes.Equal(in, out) {
			t.Errorf("%s: decompressed as %s: %v", c, got, err)
		}
	}
}

func TestDecompress(t *testing.T) {
	t.Parallel()
	in := someBytes(10_000)
	gz, zs := compress(t, in, layer.Gzip, 10_000), compress(t, in, layer.Zstd, 10_000)
	skippable := []byte("\x5a\x2a\x4d\x18\x04\x00\x00\x00skip")
	badCRC := bytes.Clone(gz)
	badCRC[len(badCRC)-6] ^= 1
	badMiddle := bytes.Clone(zs)
	badMiddle[len(badMiddle)/2] ^= 0x55
	for _, c := range []struct {
		name string
		in   []byte
		c    layer.Compression
		want []byte
		err  error
	}{
		{"nothing", nil, layer.None, nil, nil},
		{"one byte", []byte{0x1f}, layer.None, []byte{0x1f}, nil},
		{"plain", in, layer.None, in, nil},
		{"gzip", gz, layer.Gzip, in, nil},
		{"gzip of nothing", compress(t, nil, layer.Gzip, 1), layer.Gzip, nil, nil},
		{"gzip of two members", join(gz, gz), layer.Gzip, join(in, in), nil},
		{"gzip and zeros", join(gz, make([]byte, 100_000)), layer.Gzip, in, nil},
		{"gzip and one zero", join(gz, make([]byte, 1)), layer.Gzip, in, nil},
		{"gzip and zeros and a member", join(gz, make([]byte, 10), gz), layer.Gzip, nil, errdefs.ErrDataLoss},
		{"gzip and garbage", join(gz, []byte("garbage")), layer.Gzip, nil, errdefs.ErrDataLoss},
		{"gzip and half a magic", join(gz, gz[:1]), layer.Gzip, nil, errdefs.ErrDataLoss},
		{"gzip and half a header", join(gz, gz[:5]), layer.Gzip, nil, errdefs.ErrDataLoss},
		{"gzip with a wrong sum", badCRC, layer.Gzip, nil, errdefs.ErrDataLoss},
		{"zstd", zs, layer.Zstd, in, nil},
		{"zstd of nothing", compress(t, nil, layer.Zstd, 1), layer.Zstd, nil, nil},
		{"zstd of two frames", join(zs, zs), layer.Zstd, join(in, in), nil},
		{"zstd and skippable frames", join(skippable, zs, skippable, zs, skippable), layer.Zstd, join(in, in), nil},
		{"zstd and garbage", join(zs, []byte("garbage")), layer.Zstd, nil, errdefs.ErrDataLoss},
		{"zstd that is damaged", badMiddle, layer.Zstd, nil, errdefs.ErrDataLoss},
		{"bzip2", []byte("BZh91AY&SY"), layer.None, nil, errdefs.ErrNotImplemented},
		{"xz", []byte("\xfd7zXZ\x00\x00"), layer.None, nil, errdefs.ErrNotImplemented},
	} {
		for _, slow := range []bool{false, true} {
			var r io.Reader = bytes.NewReader(c.in)
			if slow {
				r = iotest.OneByteReader(r)
			}
			out, got, err := decompress(r, layer.Limits{})
			if !isClass(err, c.err) || (err == nil) != (c.err == nil) {
				t.Errorf("%s: error %v, want %v", c.name, err, c.err)
			}
			if got != c.c || c.err == nil && !bytes.Equal(out, c.want) {
				t.Errorf("%s: %d bytes as %s, want %d as %s", c.name, len(out), got, len(c.want), c.c)
			}
		}
	}
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestDecompressTruncated(t *testing.T) {
	t.Parallel()
	in := someBytes(3000)
	for _, c := range compressions[1:] {
		z := compress(t, in, c, 3000)
		for cut := 6; cut < len(z); cut += 13 {
			if _, _, err := decompress(bytes.NewReader(z[:cut]), layer.Limits{}); !errors.Is(err, errdefs.ErrDataLoss) {
				t.Fatalf("%s cut at %d of %d: %v", c, cut, len(z), err)
			}
		}
		broken := errors.New("broken cable")
		_, _, err := decompress(io.MultiReader(bytes.NewReader(z[:len(z)/2]), iotest.ErrReader(broken)), layer.Limits{})
		if !errors.Is(err, broken) || errors.Is(err, errdefs.ErrDataLoss) {
			t.Errorf("%s: error of the reader below became %v", c, err)
		}
	}
}

func TestDecompressLimits(t *testing.T) {
	t.Parallel()
	var z bytes.Buffer
	w, err := zstd.NewWriter(&z, zstd.WithWindowSize(16<<20), zstd.WithEncoderConcurrency(1))
	must(t, err)
	_, err = io.CopyN(w, zeroReader{}, 1<<30+64<<20)
	must(t, err)
	must(t, w.Close())
	for _, c := range []struct {
		limits layer.Limits
		text   string
	}{
		{layer.Limits{}, "Ratio of 1100"},
		{layer.Limits{Window: 1 << 20}, "Window of 1048576"},
		{layer.Limits{Ratio: -1}, ""},
	} {
		r, _, err := layer.Decompress(bytes.NewReader(z.Bytes()), c.limits)
		must(t, err)
		_, err = io.Copy(io.Discard, r)
		if c.text == "" && err != nil || c.text != "" && (!errors.Is(err, errdefs.ErrResourceExhausted) || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%+v: %v", c.limits, err)
		}
		must(t, r.Close())
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBlob(t *testing.T) {
	t.Parallel()
	in := largeLayer(t)
	diffID := digest.FromBytes(in)
	for _, c := range compressions {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			var blob bytes.Buffer
			w, err := layer.CreateBlob(&blob, c)
			must(t, err)
			defer w.Close()
			r := layer.NewReader(bytes.NewReader(in), layer.Limits{})
			for e, err := range r.All() {
				must(t, err)
				must(t, w.Write(e, r))
			}
			made, err := w.Finish()
			must(t, err)
			want := layer.Digests{
				Blob: digest.FromBytes(blob.Bytes()), Size: int64(blob.Len()),
				DiffID: diffID, DiffSize: int64(len(in)), Compression: c,
			}
			if made != want {
				t.Errorf("made %+v, want %+v", made, want)
			}
			for _, entries := range []int{0, 1, 150, 1000} {
				b, err := layer.OpenBlob(iotest.HalfReader(bytes.NewReader(blob.Bytes())), layer.Limits{})
				must(t, err)
				n := 0
				for n < entries {
					e, err := b.Next()
					if err == io.EOF {
						break
					}
					must(t, err)
					if n++; n%3 == 0 {
						h := sha256.New()
						size, err := b.WriteTo(h)
						if err != nil || size != e.Size {
							t.Fatalf("content of %s: %d bytes, %v", e.Name, size, err)
						}
					}
				}
				got, err := b.Finish()
				if err != nil || got != want {
					t.Errorf("after %d entries: %+v, %v", n, got, err)
				}
				must(t, b.Close())
			}
		})
	}
}

func TestBlobOfTrailingBytes(t *testing.T) {
	t.Parallel()
	in := join(archiveTar(t, tar.FormatPAX), []byte("behind the end"))
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz)
	_, err := z.Write(in)
	must(t, err)
	must(t, z.Close())
	blob := join(gz.Bytes(), make([]byte, 300_000))
	b, err := layer.OpenBlob(bytes.NewReader(blob), layer.Limits{})
	must(t, err)
	for _, err := range b.All() {
		must(t, err)
	}
	got, err := b.Finish()
	want := layer.Digests{
		Blob: digest.FromBytes(blob), Size: int64(len(blob)),
		DiffID: digest.FromBytes(in), DiffSize: int64(len(in)), Compression: layer.Gzip,
	}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// TestBlobFaults checks errors, and that nothing is left running after them.
func TestBlobFaults(t *testing.T) {
	before := runtime.NumGoroutine()
	in := largeLayer(t)
	broken := errors.New("broken cable")
	for _, c := range compressions {
		blob := compress(t, in, c, len(in))
		b, err := layer.OpenBlob(bytes.NewReader(blob), layer.Limits{})
		must(t, err)
		_, err = b.Next()
		must(t, err)
		must(t, b.Close())
		must(t, b.Close())
		if _, err := b.Next(); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("%s: Next after Close: %v", c, err)
		}
		if _, err := b.Finish(); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("%s: Finish after Close: %v", c, err)
		}

		b, err = layer.OpenBlob(io.MultiReader(bytes.NewReader(blob[:len(blob)/2]), iotest.ErrReader(broken)), layer.Limits{})
		must(t, err)
		for _, e := range b.All() {
			err = e
		}
		if !errors.Is(err, broken) {
			t.Errorf("%s: reading gave %v", c, err)
		}
		if _, err := b.Finish(); !errors.Is(err, broken) {
			t.Errorf("%s: Finish gave %v", c, err)
		}

		if c != layer.None {
			b, err = layer.OpenBlob(bytes.NewReader(blob[:len(blob)-1]), layer.Limits{})
			must(t, err)
			if _, err := b.Finish(); !errors.Is(err, errdefs.ErrDataLoss) {
				t.Errorf("%s: Finish of a cut blob gave %v", c, err)
			}
		}

		w, err := layer.CreateBlob(&limitedWriter{left: 100_000, err: broken}, c)
		must(t, err)
		r := layer.NewReader(bytes.NewReader(in), layer.Limits{})
		for e, err := range r.All() {
			must(t, err)
			if err := w.Write(e, r); err != nil {
				if !errors.Is(err, broken) {
					t.Errorf("%s: Write with a full disk gave %v", c, err)
				}
				break
			}
		}
		if _, err := w.Finish(); !errors.Is(err, broken) {
			t.Errorf("%s: Finish with a full disk gave %v", c, err)
		}
		must(t, w.Close())

		w, err = layer.CreateBlob(io.Discard, c)
		must(t, err)
		must(t, w.Write(&layer.Entry{Name: "x"}, nil))
		must(t, w.Close())
		if _, err := w.Finish(); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("%s: Finish after Close: %v", c, err)
		}
	}
	if _, err := layer.OpenBlob(strings.NewReader("BZh91AY&SY"), layer.Limits{}); !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("bzip2: %v", err)
	}
	if _, err := layer.OpenBlob(iotest.ErrReader(broken), layer.Limits{}); !errors.Is(err, broken) {
		t.Errorf("broken from the start: %v", err)
	}
	deadline := time.Now().Add(testenv.Patience) // the compressors' own goroutines end on their own
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
}

type limitedWriter struct {
	left int
	err  error
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		return 0, w.err
	}
	w.left -= len(p)
	return len(p), nil
}

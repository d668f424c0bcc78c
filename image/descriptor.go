package image

import (
	"crypto"
	_ "crypto/sha256" // the algorithms of the image specification: the required one,
	_ "crypto/sha512" // and the optional one
	"hash"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of docker's image manifest, version 2, schema 2
// (https://distribution.github.io/distribution/spec/manifest-v2-2/).
const (
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
	dockerForeign  = "application/vnd.docker.image.rootfs.foreign.diff.tar"
)

func isIndex(mediaType string) bool {
	return mediaType == v1.MediaTypeImageIndex || mediaType == dockerList
}

func isManifest(mediaType string) bool {
	return mediaType == v1.MediaTypeImageManifest || mediaType == dockerManifest
}

func isConfig(mediaType string) bool {
	return mediaType == v1.MediaTypeImageConfig || mediaType == dockerConfig
}

func isLayer(mediaType string) bool {
	switch mediaType {
	case v1.MediaTypeImageLayer, v1.MediaTypeImageLayerGzip, v1.MediaTypeImageLayerZstd,
		dockerLayer, dockerLayer + ".gzip", dockerLayer + ".zstd":
		return true
	}
	return isForeign(mediaType)
}

// isForeign tells the layers whose makers do not want them passed on.
func isForeign(mediaType string) bool {
	switch mediaType {
	case v1.MediaTypeImageLayerNonDistributable, v1.MediaTypeImageLayerNonDistributableGzip, v1.MediaTypeImageLayerNonDistributableZstd, //nolint:staticcheck // images that have them exist
		dockerForeign, dockerForeign + ".gzip":
		return true
	}
	return false
}

// checkDigest judges a digest's form, so that it may be part of a path: one
// of the algorithms of the image specification, and as many lower case
// hexadecimal digits as that algorithm has.
func checkDigest(d digest.Digest) error {
	algorithm, hex, _ := strings.Cut(string(d), ":")
	var want int
	switch digest.Algorithm(algorithm) {
	case digest.SHA256:
		want = crypto.SHA256.Size() * 2
	case digest.SHA512:
		want = crypto.SHA512.Size() * 2
	default:
		return invalid("digest %.80q: its algorithm is neither sha256 nor sha512", string(d))
	}
	if len(hex) != want {
		return invalid("digest %.80q: it has %d digits, not %d", string(d), len(hex), want)
	}
	for i := range len(hex) {
		if c := hex[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return invalid("digest %.80q: %q is not a lower case hexadecimal digit", string(d), c)
		}
	}
	return nil
}

// CheckDescriptor judges what can be judged of a descriptor without its blob:
// the form of the digest, the size, and the embedded copy of the blob if it has
// one.
func CheckDescriptor(d v1.Descriptor) error { return checkDescriptor(d) }

// checkDescriptor judges what can be judged of a descriptor without its blob:
// digest, size, and the embedded copy of the blob if it has one.
func checkDescriptor(d v1.Descriptor) error {
	if err := checkDigest(d.Digest); err != nil {
		return err
	}
	if d.Size < 0 {
		return invalid("blob %s: its descriptor has the size %d", d.Digest, d.Size)
	}
	if d.Data == nil {
		return nil
	}
	if int64(len(d.Data)) != d.Size {
		return dataLoss("blob %s: its descriptor embeds %d bytes, not %d", d.Digest, len(d.Data), d.Size)
	}
	if got := d.Digest.Algorithm().FromBytes(d.Data); got != d.Digest {
		return dataLoss("blob %s: the data that its descriptor embeds has digest %s", d.Digest, got)
	}
	return nil
}

// A verifier passes a blob's bytes on. It returns io.EOF only if there were
// as many as the descriptor says, of the digest that it says, else an error
// of class ErrDataLoss.
type verifier struct {
	blob  io.ReadCloser
	check checker
	err   error
}

func verify(blob io.ReadCloser, d v1.Descriptor) *verifier {
	return &verifier{blob: blob, check: newChecker(d)}
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.blob.Read(p)
	v.err = v.check.add(p[:n])
	if v.err == nil {
		v.err = err
		if err == io.EOF {
			v.err = v.check.verdict()
			if v.err == nil {
				v.err = io.EOF
			}
		}
	}
	return n, v.err
}

func (v *verifier) Close() error { return v.blob.Close() }

// A checker holds bytes against a descriptor.
type checker struct {
	desc v1.Descriptor
	hash hash.Hash
	n    int64
}

func newChecker(d v1.Descriptor) checker {
	return checker{desc: d, hash: d.Digest.Algorithm().Hash()}
}

func (c *checker) add(p []byte) error {
	c.n += int64(len(p))
	if c.n > c.desc.Size {
		return dataLoss("blob %s: it is longer than the %d bytes of its descriptor", c.desc.Digest, c.desc.Size)
	}
	c.hash.Write(p)
	return nil
}

func (c *checker) verdict() error {
	if c.n < c.desc.Size {
		return dataLoss("blob %s: it is truncated: %d of %d bytes", c.desc.Digest, c.n, c.desc.Size)
	}
	if got := digest.NewDigest(c.desc.Digest.Algorithm(), c.hash); got != c.desc.Digest {
		return dataLoss("blob %s: its content has digest %s", c.desc.Digest, got)
	}
	return nil
}

package image

import (
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
)

// counted passes bytes on, and hashes and counts them.
type counted struct {
	w    io.Writer
	hash hash.Hash
	n    int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.hash.Write(p[:n])
	c.n += int64(n)
	return n, err
}

// digest is of what has passed, by SHA-256.
func (c *counted) digest() digest.Digest { return digest.NewDigest(digest.SHA256, c.hash) }

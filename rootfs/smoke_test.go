package rootfs_test

import (
	"io"
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/rootfs"
)

func TestSmoke(t *testing.T) {
	dir := os.Getenv("SMOKE_DIR")
	s, err := rootfs.Open(rootfs.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	l, err := s.Unpack(t.Context(), digest.Digest("sha256:"+os.Getenv("SMOKE_SUM")), func() (io.ReadCloser, error) { return os.Open(os.Getenv("SMOKE_BLOB")) })
	if err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(begin), l.Path(), l.Entries(), l.Size())
}

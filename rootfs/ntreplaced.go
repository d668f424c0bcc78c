package rootfs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// ntReplaced knows the files of a layer that it replaces itself, which no layer of Windows does: a name comes again, maybe in
// another case, or a directory gives way to something else. Their content is in the directory Replaced, as
// SHA256-OF-NAME.NUMBER, the number counting the entries for files of that name.
type ntReplaced struct {
	files map[[sha256.Size]byte]int // how many of a name's files are there
	seen  map[[sha256.Size]byte]int // when the layer is read: how many of them came
}

// sumOfName is that of the name in upper case: how it is spelled on the disk depends on the parents, too.
func sumOfName(name string) [sha256.Size]byte { return sha256.Sum256([]byte(ntfs.Upcase(name))) }

func replacedName(sum [sha256.Size]byte, n int) string {
	return ntReplacedDir + "/" + hex.EncodeToString(sum[:]) + "." + strconv.Itoa(n)
}

// keepReplaced keeps the content of what goes from the tree with a name.
func (s *ntSource) keepReplaced(name string, kind layer.Kind) error {
	switch kind {
	case layer.File:
		return s.keepFile(name)
	case layer.Dir:
		return s.keepBelow(name)
	}
	return nil
}

func (s *ntSource) keepBelow(dir string) error {
	names, err := namesIn(s.root, dir)
	if err != nil {
		return err
	}
	for _, last := range names {
		name := dir + "/" + last
		kind, ok := s.brought[name]
		delete(s.brought, name)
		if !ok {
			continue
		}
		if err := s.keepReplaced(name, kind); err != nil {
			return err
		}
	}
	return nil
}

func (s *ntSource) keepFile(name string) error {
	if s.replaced.files == nil {
		s.replaced.files = make(map[[sha256.Size]byte]int)
		if err := os.Mkdir(filepath.Join(s.dir, ntReplacedDir), 0o700); err != nil {
			return err
		}
	}
	sum := sumOfName(name)
	s.replaced.files[sum]++
	return linkAcross(s.root, name, s.root, replacedName(sum, s.replaced.files[sum]))
}

// replacedIn finds what was kept in a layer directory.
func replacedIn(root *inroot.Root) (r ntReplaced, err error) {
	names, err := namesIn(root, ntReplacedDir)
	if err != nil || len(names) == 0 {
		return r, err
	}
	r = ntReplaced{files: make(map[[sha256.Size]byte]int), seen: make(map[[sha256.Size]byte]int)}
	for _, name := range names {
		digest, _, _ := strings.Cut(name, ".")
		sum, err := hex.DecodeString(digest)
		if err != nil || len(sum) != sha256.Size {
			return r, fmt.Errorf("%s/%s is no file of a layer: %w", ntReplacedDir, name, errors.Join(errdefs.ErrDataLoss, err))
		}
		r.files[[sha256.Size]byte(sum)]++
	}
	return r, nil
}

// where returns where the content of the next file of a name is.
func (r *ntReplaced) where(name string) string {
	if r.files == nil {
		return name
	}
	sum := sumOfName(name)
	if r.seen[sum]++; r.seen[sum] > r.files[sum] {
		return name
	}
	return replacedName(sum, r.seen[sum])
}

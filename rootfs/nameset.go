package rootfs

import (
	"crypto/rand"
	"hash/maphash"
	"os"

	"github.com/hostcompute/hcs/internal/spill"
	"github.com/hostcompute/hcs/internal/sys"
)

// nameID is a name in a directory, whatever path led there.
type nameID struct {
	dir  objectID
	name string
}

// nameSet is a set of names, of any number. It keeps hashes of 128 bits, with seeds that nobody knows beforehand, in their
// place: that two names have the same one does not happen.
type nameSet struct {
	store *spill.Store
	names *spill.Table[nameHash]
	seeds [2]maphash.Seed
}

// nameHash is never zero.
type nameHash [2]uint64

const nameSetMemory = 8 << 20

// newNameSet returns an empty set, which opens a file where there is not enough memory. The caller closes it.
func newNameSet(create spillFile) *nameSet {
	if create == nil {
		create = temporaryFile
	}
	s := spill.New(spill.Config{Memory: nameSetMemory, Create: create})
	return &nameSet{
		store: s, names: spill.NewTable(s, func(h nameHash) uint64 { return h[0] }),
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
	}
}

// temporaryFile opens a file of the system's temporary directory that has no name, if the kernel can do without one from the
// beginning: then a process that is killed leaves nothing.
func temporaryFile() (*os.File, error) {
	return sys.UnnamedFile(os.TempDir(), "hcs-"+rand.Text())
}

func (s *nameSet) close() error { return s.store.Close() }

func (s *nameSet) hash(id nameID) nameHash {
	return nameHash{maphash.Comparable(s.seeds[0], id), maphash.Comparable(s.seeds[1], id) | 1}
}

func (s *nameSet) find(h nameHash) (place int, found bool) {
	_, place, found = s.names.Find(h[0], func(other nameHash) bool { return other == h })
	return place, found
}

func (s *nameSet) has(id nameID) bool {
	_, found := s.find(s.hash(id))
	return found
}

// add adds a name, and says whether it is a new one. The error is the first that there was with the file, since which answers
// may have been wrong.
func (s *nameSet) add(id nameID) (fresh bool, err error) {
	h := s.hash(id)
	place, found := s.find(h)
	if !found {
		s.names.Put(place, h)
	}
	return !found, s.names.Trim()
}

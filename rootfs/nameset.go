package rootfs

import (
	"crypto/rand"
	"errors"
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
	slots *spill.Array[nameHash] // open addressed, by the upper bits
	shift int
	count int
	seeds [2]maphash.Seed
}

// nameHash is zero in a slot that is free.
type nameHash [2]uint64

const (
	nameSetMemory = 8 << 20
	firstNames    = 10 // as a power of two
)

// newNameSet returns an empty set, which opens a file where there is not enough memory. The caller closes it.
func newNameSet(create spillFile) *nameSet {
	if create == nil {
		create = temporaryFile
	}
	s := spill.New(spill.Config{Memory: nameSetMemory, Create: create})
	n := &nameSet{
		store: s, slots: spill.NewArray[nameHash](s), shift: 64 - firstNames,
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
	}
	n.slots.Extend(1 << firstNames)
	return n
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

// probe returns where a hash is, or belongs.
func (s *nameSet) probe(h nameHash) (place int, found bool) {
	last := s.slots.Len() - 1
	for i := int(h[0] >> s.shift); ; i = (i + 1) & last {
		switch s.slots.Get(i) {
		case h:
			return i, true
		case nameHash{}:
			return i, false
		}
	}
}

func (s *nameSet) has(id nameID) bool {
	_, found := s.probe(s.hash(id))
	return found
}

// add adds a name. The error is the first that there was with the file, since which has may have been wrong.
func (s *nameSet) add(id nameID) error {
	h := s.hash(id)
	place, found := s.probe(h)
	if !found {
		*s.slots.At(place) = h
		s.count++
	}
	if s.count*4 > s.slots.Len()*3 {
		if err := s.grow(); err != nil {
			return err
		}
	}
	return s.store.Trim()
}

// grow makes the table larger. As the upper bits decide on places, the new one is filled from its begin to its end.
func (s *nameSet) grow() error {
	old := s.slots
	s.slots = spill.NewArray[nameHash](s.store)
	s.slots.Extend(old.Len() * 2)
	s.shift--
	for i := range old.Len() {
		if h := old.Get(i); h != (nameHash{}) {
			place, _ := s.probe(h)
			*s.slots.At(place) = h
		}
		if i%nodeBlock == 0 {
			if err := s.store.Trim(); err != nil {
				return errors.Join(err, old.Close())
			}
		}
	}
	return old.Close()
}

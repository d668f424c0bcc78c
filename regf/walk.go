package regf

import "iter"

// Every cell has one place in a hive, those of security descriptors aside. So the cells on a walk have together at most
// the hive's size, and a budget of that many bytes ends walks of cycles and of keys that are listed over and over.
type budget struct{ left int64 }

func (h *Hive) budget() *budget { return &budget{int64(h.DataSize)} }

func (b *budget) spend(off uint32, bytes ...uint32) error {
	for _, n := range bytes {
		b.left -= int64(n)
	}
	if b.left < 0 {
		return corrupt(off, "keys or values that are listed more than once")
	}
	return nil
}

// take pays for a key and its lists of subkeys and returns the subkeys.
func (b *budget) take(k Key, depth int) ([]uint32, error) {
	if depth > MaxDepth {
		return nil, corrupt(k.off, "key more than %d keys deep", MaxDepth)
	}
	offs, cells, err := k.subkeyOffsets()
	if err != nil {
		return nil, err
	}
	return offs, b.spend(k.off, uint32(len(k.nk)+4), cells) //nolint:gosec // a cell's size
}

// Walk returns all keys with their paths, a key before its subkeys. The root's path is empty, those of others begin with
// the names below the root. The walk ends with the first error.
func (h *Hive) Walk() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		root, err := h.Root()
		if err != nil {
			yield(Entry{}, err)
			return
		}
		b := h.budget()
		var walk func(e Entry, depth int) bool
		walk = func(e Entry, depth int) bool {
			offs, err := b.take(e.Key, depth)
			if !yield(e, err) || err != nil {
				return false
			}
			for _, off := range offs {
				sub, err := h.key(off)
				if err != nil {
					yield(Entry{}, err)
					return false
				}
				if !walk(Entry{joinPath(e.Path, sub.Name()), sub}, depth+1) {
					return false
				}
			}
			return true
		}
		walk(Entry{Key: root}, 0)
	}
}

// An Entry is a key that a walk came to.
type Entry struct {
	Path string
	Key
}

func joinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + `\` + name
}

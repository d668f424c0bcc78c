package spill

import "errors"

// Table is a hash table of values without pointers, of any number: an open addressed one in an array. The zero value of T is a
// free place, and no value.
type Table[T comparable] struct {
	store *Store
	slots *Array[T]
	hash  func(T) uint64
	shift int // what a hash is moved by to be a place
	count int
}

const (
	firstSlots = 10   // as a power of two
	growBlock  = 1024 // slots after which a table that grows is trimmed
)

// NewTable returns an empty table of the Store. hash returns a value's hash, of which the upper bits must be well spread. What
// NewArray says of types holds here too.
func NewTable[T comparable](s *Store, hash func(T) uint64) *Table[T] {
	t := &Table[T]{store: s, slots: NewArray[T](s), hash: hash, shift: 64 - firstSlots}
	t.slots.Extend(1 << firstSlots)
	return t
}

// Len returns the number of values.
func (t *Table[T]) Len() int { return t.count }

// Full reports whether the table takes no more values before the next Trim.
func (t *Table[T]) Full() bool { return t.slots.Len()-t.count < 2 }

// Find returns the value with a hash that is what is looked for, or the place where it belongs, until the next Put or Trim.
func (t *Table[T]) Find(hash uint64, is func(T) bool) (v T, place int, found bool) {
	var free T
	last := t.slots.Len() - 1
	for i := int(hash >> t.shift); ; i = (i + 1) & last {
		v := t.slots.Get(i)
		if v == free {
			return v, i, false
		}
		if is(v) {
			return v, i, true
		}
	}
}

// Put adds a value at the free place that Find has returned. It does not look whether the table is Full.
func (t *Table[T]) Put(place int, v T) {
	*t.slots.At(place) = v
	t.count++
}

// Trim is the Store's, and gives the table more places when three quarters are taken.
func (t *Table[T]) Trim() error {
	if t.count*4 > t.slots.Len()*3 {
		if err := t.grow(); err != nil {
			return err
		}
	}
	return t.store.Trim()
}

// grow makes the table larger. As the upper bits decide on places, the new one is filled from its begin to its end.
func (t *Table[T]) grow() error {
	var free T
	old := t.slots
	t.slots = NewArray[T](t.store)
	t.slots.Extend(old.Len() * 2)
	t.shift--
	last := t.slots.Len() - 1
	for i := range old.Len() {
		v := old.Get(i)
		if v == free {
			continue
		}
		to := int(t.hash(v) >> t.shift)
		for t.slots.Get(to) != free {
			to = (to + 1) & last
		}
		*t.slots.At(to) = v
		if i%growBlock == 0 {
			if err := t.store.Trim(); err != nil {
				return errors.Join(err, old.Close())
			}
		}
	}
	return old.Close()
}

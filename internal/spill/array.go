package spill

import (
	"fmt"
	"reflect"
	"unsafe"
)

// Array is an array of values without pointers.
type Array[T any] struct {
	t      *table
	length int
}

// NewArray returns an empty array of the Store. A type that has pointers, or is larger than 16 KiB, is a mistake of the
// program and panics.
func NewArray[T any](s *Store) *Array[T] {
	if t := reflect.TypeFor[T](); hasPointers(t) || t.Size() == 0 || t.Size() > blockSize || t.Align() > 8 {
		panic(fmt.Sprintf("spill: %v cannot be kept in files", t))
	}
	return &Array[T]{t: s.newTable()}
}

func hasPointers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Array:
		return hasPointers(t.Elem())
	case reflect.Struct:
		for field := range t.Fields() {
			if hasPointers(field.Type) {
				return true
			}
		}
		return false
	}
	return t.Kind() > reflect.Complex128
}

// perBlock is how many values a block has.
func (a *Array[T]) perBlock() int {
	var v T
	return blockSize / int(unsafe.Sizeof(v))
}

// Len returns the number of values.
func (a *Array[T]) Len() int { return a.length }

// At returns a value to be looked at or changed until the Store's next Trim.
func (a *Array[T]) At(i int) *T {
	p, f := a.locate(i)
	f.dirty = true
	return p
}

// Get returns a value.
func (a *Array[T]) Get(i int) T {
	p, _ := a.locate(i)
	return *p
}

func (a *Array[T]) locate(i int) (*T, *frame) {
	if uint(i) >= uint(a.length) {
		panic(fmt.Sprintf("spill: index %d of an array of %d", i, a.length))
	}
	var v T
	per := a.perBlock()
	f := a.t.load(i / per)
	// The block is aligned to its size, a value to its own, and the garbage collector need not know of it.
	return (*T)(unsafe.Pointer(&f.data[i%per*int(unsafe.Sizeof(v))])), f
}

// Append adds a value and returns its index.
func (a *Array[T]) Append(v T) int {
	i := a.length
	a.Extend(1)
	*a.At(i) = v
	return i
}

// Extend adds n zero values.
func (a *Array[T]) Extend(n int) {
	a.length += n
	per := a.perBlock()
	for len(a.t.blocks)*per < a.length {
		a.t.blocks = append(a.t.blocks, nil)
	}
}

// Close gives back the memory and the file of an array that is no longer needed, which is empty then.
func (a *Array[T]) Close() error {
	a.length = 0
	return a.t.close()
}

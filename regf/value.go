package regf

import (
	"fmt"
	"iter"
)

// A Type is the type of a value's data. Any number may occur.
type Type uint32

// The types that have names.
const (
	TypeNone Type = iota
	TypeString
	TypeExpandString
	TypeBinary
	TypeDWord
	TypeDWordBigEndian
	TypeLink
	TypeMultiString
	TypeResourceList
	TypeFullResourceDescriptor
	TypeResourceRequirements
	TypeQWord
)

// A Value is one value of a key. Data of a value that was read may be the hive's own bytes: do not change it.
type Value struct {
	Name      string // empty: the key's default value
	Type      Type
	Data      []byte
	Tombstone bool // in a delta: the value is removed from the hive below
}

const (
	vkSize      = 20
	vkLatin     = 1
	vkTombstone = 2
	inlineData  = 1 << 31
	segmentSize = 16344 // of big data
)

// A rawValue is a value's cell, with its data not yet found.
type rawValue struct {
	off uint32
	vk  []byte
}

func (v rawValue) name() rawName {
	return rawName{v.vk[vkSize:][:le16(v.vk[2:])], le16(v.vk[16:])&vkLatin == 0}
}

func (v rawValue) size() uint32    { return le32(v.vk[4:]) &^ inlineData }
func (v rawValue) inline() bool    { return le32(v.vk[4:])&inlineData != 0 }
func (v rawValue) tombstone() bool { return le16(v.vk[16:])&vkTombstone != 0 }

func (h *Hive) rawValue(off uint32) (rawValue, error) {
	vk, err := h.record(off, "vk", vkSize, "value")
	if err != nil {
		return rawValue{}, err
	}
	v := rawValue{off, vk}
	n := int(le16(vk[2:]))
	if n > len(vk)-vkSize || n%2 != 0 && le16(vk[16:])&vkLatin == 0 {
		return rawValue{}, corrupt(off, "name of %d bytes in a value of %d", n, len(vk))
	}
	if v.inline() && v.size() > 4 {
		return rawValue{}, corrupt(off, "value with %d bytes of data inside", v.size())
	}
	return v, nil
}

// data returns the value's data, and how many bytes of cells hold it.
func (h *Hive) data(v rawValue) (data []byte, cells uint32, err error) {
	size, off := v.size(), le32(v.vk[8:])
	switch {
	case v.inline():
		return v.vk[8 : 8+size : 8+size], 0, nil
	case size == 0:
		return nil, 0, nil
	case size > h.DataSize:
		return nil, 0, corrupt(v.off, "value with %#x bytes of data in a hive of %#x", size, h.DataSize)
	}
	b, err := h.cell(off, "data")
	if err != nil {
		return nil, 0, fmt.Errorf("read value at %#x: %w", v.off, err)
	}
	if size > segmentSize && h.Minor > 3 && uint64(len(b)) < uint64(size) {
		data, err = h.bigData(off, b, size)
		return data, size + uint32(len(b)), err //nolint:gosec // a cell's size
	}
	if uint64(len(b)) < uint64(size) {
		return nil, 0, corrupt(off, "%d bytes for data of %d", len(b), size)
	}
	return b[:size:size], uint32(len(b)), nil //nolint:gosec // a cell's size
}

func (h *Hive) bigData(off uint32, db []byte, size uint32) ([]byte, error) {
	count := (size + segmentSize - 1) / segmentSize
	if len(db) < 8 || string(db[:2]) != "db" || uint32(le16(db[2:])) != count {
		return nil, corrupt(off, "no record of %d segments of big data", count)
	}
	list, err := h.cell(le32(db[4:]), "list of segments")
	if err != nil {
		return nil, fmt.Errorf("read big data at %#x: %w", off, err)
	}
	if uint64(len(list)) < 4*uint64(count) {
		return nil, corrupt(le32(db[4:]), "%d bytes for a list of %d segments", len(list), count)
	}
	data := make([]byte, 0, size)
	for i := range count {
		seg := le32(list[4*i:])
		b, err := h.cell(seg, "segment")
		if err != nil {
			return nil, fmt.Errorf("read big data at %#x: %w", off, err)
		}
		want := min(segmentSize, size-uint32(len(data))) //nolint:gosec // below size
		if uint64(len(b)) < uint64(want) {
			return nil, corrupt(seg, "%d bytes for a segment of %d", len(b), want)
		}
		data = append(data, b[:want]...)
	}
	return data, nil
}

// value finds the data of a value.
func (h *Hive) value(raw rawValue) (Value, uint32, error) {
	data, cells, err := h.data(raw)
	if err != nil {
		return Value{}, 0, err
	}
	return Value{Name: raw.name().String(), Type: Type(le32(raw.vk[12:])), Data: data, Tombstone: raw.tombstone()}, cells, nil
}

// valueList returns the list of a key's values, four bytes each.
func (k Key) valueList() ([]byte, error) {
	count := le32(k.nk[36:])
	if count == 0 || k.Flags()&KeyPredefined != 0 {
		return nil, nil
	}
	off := le32(k.nk[40:])
	b, err := k.h.cell(off, "list of values")
	if err != nil {
		return nil, fmt.Errorf("read key at %#x: %w", k.off, err)
	}
	if uint64(len(b)) < 4*uint64(count) {
		return nil, corrupt(off, "%d bytes for a list of %d values", len(b), count)
	}
	return b[:4*count], nil
}

func (k Key) rawValues() iter.Seq2[rawValue, error] {
	return func(yield func(rawValue, error) bool) {
		list, err := k.valueList()
		if err != nil {
			yield(rawValue{}, err)
			return
		}
		for ; len(list) > 0; list = list[4:] {
			v, err := k.h.rawValue(le32(list))
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// Values returns the key's values in the order in which they are stored. The walk ends with the first error. The data of
// one key's values has at most the hive's size; who reads those of all keys of a hive that nobody trusts validates it
// first, as keys of such a hive may share data.
func (k Key) Values() iter.Seq2[Value, error] {
	return func(yield func(Value, error) bool) {
		b := k.h.budget()
		for raw, err := range k.rawValues() {
			var v Value
			var cells uint32
			if err == nil {
				v, cells, err = k.h.value(raw)
			}
			if err == nil {
				err = b.spend(raw.off, uint32(len(raw.vk)), cells) //nolint:gosec // a cell's size
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// Value returns the value of that name, whatever its case, or an error of class ErrNotExist.
func (k Key) Value(name string) (Value, error) {
	want := nameOf(name)
	for raw, err := range k.rawValues() {
		if err != nil {
			return Value{}, err
		}
		if compareNames(raw.name(), want) == 0 {
			v, _, err := k.h.value(raw)
			return v, err
		}
	}
	return Value{}, fmt.Errorf("find value %q of key %q: %w", name, k.Name(), ErrNotExist)
}

package wire

import "encoding/binary"

// encoder appends fields to a body: integers as uvarints, strings and lists
// with their length before them.
type encoder struct{ b []byte }

func (e *encoder) uint(v uint64) { e.b = binary.AppendUvarint(e.b, v) }

func (e *encoder) string(s string) {
	e.uint(uint64(len(s)))
	e.b = append(e.b, s...)
}

func (e *encoder) strings(list []string) {
	e.uint(uint64(len(list)))
	for _, s := range list {
		e.string(s)
	}
}

func (e *encoder) uints(list ...uint64) {
	for _, v := range list {
		e.uint(v)
	}
}

func (e *encoder) bool(v bool) {
	if v {
		e.uint(1)
	} else {
		e.uint(0)
	}
}

// encodeList appends the length, and each element by put.
func encodeList[T any](e *encoder, list []T, put func(*T)) {
	e.uint(uint64(len(list)))
	for i := range list {
		put(&list[i])
	}
}

// decoder takes fields off a body. The first field that does not fit makes
// it fail; every later one is then zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail()
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) strings() []string {
	n := d.uint()
	if n > uint64(len(d.b)) { // each string takes a byte at the least
		d.fail()
		return nil
	}
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = d.string()
	}
	return list
}

// fixed takes a list of as many strings.
func (d *decoder) fixed(to ...*string) {
	list := d.strings()
	if len(list) != len(to) {
		d.fail()
		return
	}
	for i, s := range list {
		*to[i] = s
	}
}

func (d *decoder) bool() bool {
	v := d.uint()
	if v > 1 {
		d.fail()
	}
	return v == 1
}

// decodeList takes what encodeList appended.
func decodeList[T any](d *decoder, take func(*T)) []T {
	n := d.uint()
	if n > uint64(len(d.b)) { // each element takes a byte at the least
		d.fail()
		return nil
	}
	var list []T
	for range n {
		var v T
		if take(&v); d.bad {
			return nil
		}
		list = append(list, v)
	}
	return list
}

func (d *decoder) fail() { d.b, d.bad = nil, true }

// end reports whether all fields were there and nothing but them.
func (d *decoder) end() error {
	if d.bad || len(d.b) != 0 {
		return ErrMalformed
	}
	return nil
}

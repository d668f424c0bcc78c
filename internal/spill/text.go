package spill

// Text is a growing sequence of bytes.
type Text struct {
	t    *table
	size int64
}

// NewText returns an empty sequence of the Store.
func NewText(s *Store) *Text { return &Text{t: s.newTable()} }

// Append adds the bytes of s and returns where they are.
func (x *Text) Append(s string) int64 {
	at := x.size
	for s != "" {
		block := int(x.size / blockSize)
		if block == len(x.t.blocks) {
			x.t.blocks = append(x.t.blocks, nil)
		}
		f := x.t.load(block)
		n := copy(f.data[x.size%blockSize:], s)
		f.dirty = true
		s, x.size = s[n:], x.size+int64(n)
	}
	return at
}

// Equal reports whether the bytes from at on begin with those of s.
func (x *Text) Equal(at int64, s string) bool {
	for s != "" {
		if at >= x.size {
			return false
		}
		part := x.part(at, len(s))
		if string(part) != s[:len(part)] {
			return false
		}
		s, at = s[len(part):], at+int64(len(part))
	}
	return true
}

// String returns n bytes from at on, or as many as there are.
func (x *Text) String(at int64, n int) string {
	n = int(min(int64(n), x.size-at))
	if part := x.part(at, n); len(part) == n {
		return string(part)
	}
	b := make([]byte, 0, n)
	for len(b) < n {
		b = append(b, x.part(at+int64(len(b)), n-len(b))...)
	}
	return string(b)
}

// part returns those of the n bytes that are in the block of the first.
func (x *Text) part(at int64, n int) []byte {
	if n <= 0 {
		return nil
	}
	rest := x.t.load(int(at / blockSize)).data[at%blockSize:]
	return rest[:min(n, len(rest))]
}

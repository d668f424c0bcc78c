package journal

// Small has the writer keep that many segments of that size.
func (w *Writer) Small(limit int64, keep int) *Writer {
	w.limit, w.keep = limit, keep
	return w
}

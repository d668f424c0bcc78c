package sys

// Access says whether a mount may be written to.
type Access int

// The kinds of access.
const (
	ReadWrite Access = iota
	ReadOnly
)

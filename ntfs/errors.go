package ntfs

import "errors"

// The classes of error; test with errors.Is.
var (
	ErrFormat      = errors.New("malformed data")
	ErrSyntax      = errors.New("syntax error")
	ErrRange       = errors.New("value out of range")
	ErrUnsupported = errors.New("not supported")
)

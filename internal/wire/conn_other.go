//go:build !linux

package wire

import (
	"errors"
	"os"
	"runtime"
)

var errUnsupported = errors.New("connect to a shim: not supported on " + runtime.GOOS)

// Conn is one end of a connection; there is none on this system.
type Conn struct{}

// Pair returns an error.
func Pair() (*Conn, *os.File, error) { return nil, nil, errUnsupported }

// Dial returns an error.
func Dial(string) (*Conn, error) { return nil, errUnsupported }

// Close returns an error.
func (*Conn) Close() error { return errUnsupported }

// Send returns an error.
func (*Conn) Send(Message) error { return errUnsupported }

// Receive returns an error.
func (*Conn) Receive() (Message, error) { return Message{}, errUnsupported }

// Reply returns an error.
func (*Conn) Reply() (Message, error) { return Message{}, errUnsupported }

// CloseFiles does nothing: descriptors do not travel on this system.
func CloseFiles([]int) {}

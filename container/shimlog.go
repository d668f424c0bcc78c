package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// shimLogSize is how large a shim's own log may be when another start begins;
// the one before it is kept beside it.
const shimLogSize = 1 << 20

func (s *System) shimLog() string { return filepath.Join(s.dir(), "shim.log") }

// openShimLog opens the file that the system's shims say in what goes wrong, a
// JSON object a line, and begins another when it is large.
func (s *System) openShimLog() (*os.File, error) {
	if info, err := os.Stat(s.shimLog()); err == nil && info.Size() > shimLogSize {
		if err := os.Rename(s.shimLog(), s.shimLog()+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return os.OpenFile(s.shimLog(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// lastWord returns what a shim said last: what went wrong, or how it crashed.
func lastWord(log []byte) string {
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	last := lines[len(lines)-1]
	var said struct {
		Message string `json:"msg"`
		Error   string `json:"error"`
	}
	if json.Unmarshal(last, &said) != nil {
		return string(last)
	}
	if said.Error == "" {
		return said.Message
	}
	return said.Message + ": " + said.Error
}

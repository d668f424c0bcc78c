package shim

import (
	"encoding/json"
	"os"
	"time"
)

// A line of the shim's own log, which is its standard error: a JSON object with the keys of log/slog, whose package is not
// linked for it.
type logLine struct {
	Time     time.Time `json:"time"`
	Level    string    `json:"level"`
	Message  string    `json:"msg"`
	Error    string    `json:"error,omitempty"`
	Pid      int       `json:"pid,omitempty"`
	ExitCode *int      `json:"exitCode,omitempty"`
	Reason   string    `json:"reason,omitempty"`
}

// note logs what went wrong where no client can be told.
func note(what string, err error) {
	logLine{Level: "ERROR", Message: what, Error: err.Error()}.write()
}

// write writes the line at once, so that none is in pieces. A full disk loses it.
func (l logLine) write() {
	l.Time = time.Now().UTC()
	text, err := json.Marshal(l)
	if err != nil {
		panic(err) // a struct of numbers and strings
	}
	_, _ = os.Stderr.Write(append(text, '\n'))
}

package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// defaultDetachKeys are docker's.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// detachFlag is the keys that leave a process at a terminal running.
type detachFlag struct{ keys string }

func (d *detachFlag) addFlag(f *pflag.FlagSet) {
	f.StringVar(&d.keys, "detach-keys", defaultDetachKeys, "`keys` that leave the process running: letters, or ctrl-a to ctrl-z, ctrl-@ [ \\ ] ^ _, with commas; none if empty")
}

// parseKeys returns the bytes that a terminal sends for KEY,KEY,…
func parseKeys(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	var keys []byte
	for key := range strings.SplitSeq(text, ",") {
		b, ok := keyByte(key)
		if !ok {
			return nil, usage(fmt.Sprintf("detach keys %q: %q is no key: give letters, or ctrl- and one of a to z, @ [ \\ ] ^ _", text, key))
		}
		keys = append(keys, b)
	}
	return keys, nil
}

// keyByte returns what a key sends: with Ctrl the lowest five bits of the upper case letter.
func keyByte(key string) (byte, bool) {
	rest, control := strings.CutPrefix(strings.ToLower(key), "ctrl-")
	switch {
	case !control && len(key) == 1:
		return key[0], true
	case !control || len(rest) != 1:
		return 0, false
	}
	if c := strings.ToUpper(rest)[0]; c >= '@' && c <= '_' {
		return c - '@', true
	}
	return 0, false
}

// keyReader reads a terminal's input until its keys come, which end it. Keys that begin like these wait for the next one.
type keyReader struct {
	from   io.Reader
	keys   []byte
	detach func()

	seen int    // of keys
	out  []byte // read, and not yet wanted
	done bool
}

// Read passes on what is not of the keys.
func (r *keyReader) Read(p []byte) (int, error) {
	for len(r.out) == 0 {
		if r.done {
			return 0, io.EOF
		}
		b := make([]byte, max(1, len(p)))
		n, err := r.from.Read(b)
		r.take(b[:n])
		if err != nil && len(r.out) == 0 {
			return 0, err
		}
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}

func (r *keyReader) take(b []byte) {
	for _, c := range b {
		for r.seen > 0 && c != r.keys[r.seen] {
			r.miss()
		}
		if c != r.keys[r.seen] {
			r.out = append(r.out, c)
			continue
		}
		if r.seen++; r.seen == len(r.keys) {
			r.done = true
			r.detach()
			return
		}
	}
}

// miss gives up the fewest of the keys that were seen, so that those left are a beginning of them again.
func (r *keyReader) miss() {
	for n := 1; ; n++ {
		if left := r.keys[n:r.seen]; bytes.HasPrefix(r.keys, left) {
			r.out = append(r.out, r.keys[:n]...)
			r.seen = len(left)
			return
		}
	}
}

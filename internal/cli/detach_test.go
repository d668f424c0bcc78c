package cli

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"
)

func TestParseKeys(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "a": "a", "ctrl-p,ctrl-q": "\x10\x11", "ctrl-@,x,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_": "\x00x\x1b\x1c\x1d\x1e\x1f", "CTRL-A": "\x01",
	} {
		if got, err := parseKeys(text); err != nil || string(got) != want {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"ab", "ctrl-", "ctrl-1", "ctrl-aa", "a,,b", ",", "ctrl-é", "é", "shift-a"} {
		if got, err := parseKeys(text); err == nil {
			t.Errorf("%q: got %q", text, got)
		}
	}
}

// TestKeyReader reads in pieces of any size.
func TestKeyReader(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		keys, in, want string
		detached       bool
	}{
		{"pq", "text", "text", false},
		{"pq", "textpqlost", "text", true},
		{"pq", "p text pp tp", "p text pp t", false}, // the last may be the first of the keys
		{"pq", "pppq", "pp", true},
		{"aab", "aaab", "a", true},
		{"aab", "aacaab", "aac", true},
		{"abac", "ababac", "ab", true},
		{"x", "ax", "a", true},
		{"pq", "pq", "", true},
	} {
		for name, pieces := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "end with data": iotest.DataErrReader,
		} {
			detached := false
			r := &keyReader{from: pieces(bytes.NewReader([]byte(c.in))), keys: []byte(c.keys), detach: func() { detached = true }}
			got, err := io.ReadAll(iotest.HalfReader(r))
			if err != nil || string(got) != c.want || detached != c.detached {
				t.Errorf("%s in %q, %s: got %q, detached %t, %v", c.keys, c.in, name, got, detached, err)
			}
		}
	}
}

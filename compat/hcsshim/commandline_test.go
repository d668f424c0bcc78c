package hcsshim

import (
	"slices"
	"testing"
)

// TestSplitCommandLine has the rules one by one. On Windows TestSplitAsWindows has what the system itself says.
func TestSplitCommandLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line string
		want []string
	}{
		{``, nil},
		{" \t ", nil},
		{`cmd`, []string{"cmd"}},
		{`  cmd  `, []string{"cmd"}},
		{"cmd a\tb  c ", []string{"cmd", "a", "b", "c"}},
		{`sh -c "echo $HOME; exit 3"`, []string{"sh", "-c", "echo $HOME; exit 3"}},

		// The program: quotes at its beginning count, backslashes never.
		{`"C:\Program Files\x.exe" a`, []string{`C:\Program Files\x.exe`, "a"}},
		{`"C:\dir\" a`, []string{`C:\dir\`, "a"}},
		{`"a b"c d`, []string{"a b", "c", "d"}},
		{`"a b`, []string{"a b"}},
		{`"" a`, []string{"", "a"}},
		{`x"a b" c`, []string{`x"a`, "b c"}},

		// Empty words.
		{`cmd ""`, []string{"cmd", ""}},
		{`cmd "" a`, []string{"cmd", "", "a"}},
		{`cmd a"" b`, []string{"cmd", "a", "b"}},

		// Backslashes count only before a quote.
		{`cmd C:\a\b \\host\share`, []string{"cmd", `C:\a\b`, `\\host\share`}},
		{`cmd a\`, []string{"cmd", `a\`}},
		{`cmd a\\`, []string{"cmd", `a\\`}},
		{`cmd \"a\"`, []string{"cmd", `"a"`}},
		{`cmd \\"a b"`, []string{"cmd", `\a b`}},
		{`cmd \\\"a b`, []string{"cmd", `\"a`, "b"}},
		{`cmd \\\\"a b"`, []string{"cmd", `\\a b`}},
		{`cmd "C:\dir\\" a`, []string{"cmd", `C:\dir\`, "a"}},
		{`cmd "C:\dir\" a`, []string{"cmd", `C:\dir" a`}},
		{`cmd "a\\\\b"`, []string{"cmd", `a\\\\b`}},

		// Quotes in the middle, left open, and in a row.
		{`cmd a"b c"d e`, []string{"cmd", "ab cd", "e"}},
		{`cmd "a b`, []string{"cmd", "a b"}},
		{`cmd "a"" b"`, []string{"cmd", `a"`, "b"}},
		{`cmd """`, []string{"cmd", `"`}},
		{`cmd """"`, []string{"cmd", `"`}},
		{`cmd """a b"""`, []string{"cmd", `"a`, `b"`}},
		{`cmd """""" a`, []string{"cmd", `""`, "a"}},
	} {
		if got := splitCommandLine(c.line); !slices.Equal(got, c.want) {
			t.Errorf("%s\n got %q\nwant %q", c.line, got, c.want)
		}
	}
}

// FuzzSplitCommandLine puts words together by the rules that Windows' programs follow, and splits the line.
func FuzzSplitCommandLine(f *testing.F) {
	for _, s := range []string{"", "a b", `a"b`, `a\`, `\"`, "\t", `""`, `\\`} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		line := "x " + quoted(a) + " " + quoted(b)
		if got := splitCommandLine(line); !slices.Equal(got, []string{"x", a, b}) {
			t.Errorf("%q: got %q, want %q", line, got, []string{a, b})
		}
	})
}

// quoted is a word between quotes
// (https://learn.microsoft.com/archive/blogs/twistylittlepassagesallalike/everyone-quotes-command-line-arguments-the-wrong-way).
func quoted(s string) string {
	out := []byte{'"'}
	run := 0
	for i := range len(s) {
		switch s[i] {
		case '\\':
			run++
		case '"':
			for range run + 1 {
				out = append(out, '\\')
			}
			run = 0
		default:
			run = 0
		}
		out = append(out, s[i])
	}
	for range run {
		out = append(out, '\\')
	}
	return string(append(out, '"'))
}

package hcsshim

import "strings"

const (
	blanks    = " \t"
	backslash = '\\'
	quote     = '"'
)

// splitCommandLine splits a command line as CommandLineToArgvW does
// (https://learn.microsoft.com/windows/win32/api/shellapi/nf-shellapi-commandlinetoargvw). Blanks before the program are
// passed over, as CreateProcess does, and an empty line has no words.
func splitCommandLine(line string) []string {
	line = strings.TrimLeft(line, blanks)
	if line == "" {
		return nil
	}
	program, rest := cutProgram(line)
	args := []string{program}
	for rest = strings.TrimLeft(rest, blanks); rest != ""; rest = strings.TrimLeft(rest, blanks) {
		var arg string
		arg, rest = cutArgument(rest)
		args = append(args, arg)
	}
	return args
}

// cutProgram cuts off the first word, in which a backslash is a backslash: it ends at the second quote, or at a blank.
func cutProgram(line string) (program, rest string) {
	if line[0] == quote {
		program, rest, _ = strings.Cut(line[1:], string(quote))
		return program, rest
	}
	if end := strings.IndexAny(line, blanks); end >= 0 {
		return line[:end], line[end:]
	}
	return line, ""
}

// cutArgument cuts off a word. Blanks between two quotes belong to it. Backslashes before a quote count half, and an odd one
// makes the quote an ordinary letter. Of quotes in a row, the one that began the quoted part included, every third is one.
func cutArgument(line string) (arg, rest string) {
	var word strings.Builder
	quotes := 0 // 0 outside of a quoted part
	for i := 0; i < len(line); {
		switch c := line[i]; {
		case c == backslash:
			run := count(line[i:], backslash)
			i += run
			if i == len(line) || line[i] != quote {
				word.WriteString(strings.Repeat(`\`, run))
				continue
			}
			word.WriteString(strings.Repeat(`\`, run/2))
			if run%2 == 1 {
				word.WriteByte(quote)
				i++
			}
		case c == quote:
			run := count(line[i:], quote)
			quotes = afterQuotes(&word, quotes, run)
			i += run
		case quotes == 0 && strings.IndexByte(blanks, c) >= 0:
			return word.String(), line[i:]
		default:
			word.WriteByte(c)
			i++
		}
	}
	return word.String(), ""
}

// afterQuotes takes a run of quotes into account, and returns the number of those that are open.
func afterQuotes(word *strings.Builder, open, run int) int {
	for range run {
		if open++; open == 3 {
			word.WriteByte(quote)
			open = 0
		}
	}
	if open == 2 {
		return 0
	}
	return open
}

func count(s string, c byte) int {
	return len(s) - len(strings.TrimLeft(s, string(c)))
}

package ntfs

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// MaxName is the most UTF-16 units that a name of a file or stream has.
const MaxName = 255

// CheckName says whether NTFS, as Windows opens it, can hold a file of that
// name: 1 to 255 units of UTF-16, WTF-8, not "." or "..", and without
// control characters, and <>:"/\|?*. The error is ErrRange. IsReserved and
// EndsInDotOrSpace tell of names that are held, but that most programs of
// Windows cannot open.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return badName("%q is no name of a file", name)
	case !ValidWTF8(name):
		return badName("the name %q is not WTF-8", name)
	case lenUTF16(name) > MaxName:
		return badName("the name %.20q… has more than %d units of UTF-16", name, MaxName)
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return r < ' ' || strings.ContainsRune(`<>:"/\|?*`, r) }); i >= 0 {
		return badName("the name %q has %q in it", name, name[i])
	}
	return nil
}

// nameError says all of what is wrong with a name. Its class is ErrRange,
// whose text would say less.
type nameError string

func badName(format string, args ...any) error { return nameError(fmt.Sprintf(format, args...)) }

func (e nameError) Error() string { return string(e) }

func (nameError) Unwrap() error { return ErrRange }

// CheckStreamName says whether an alternate data stream can have the name: 1
// to 255 units of UTF-16 without NUL, colon, slash and backslash. The error is
// ErrRange.
func CheckStreamName(name string) error {
	if name == "" || !ValidWTF8(name) || lenUTF16(name) > MaxName || strings.ContainsAny(name, ":/\\\x00") {
		return badName("%.40q is no name of a stream", name)
	}
	return nil
}

var reservedNames = []string{"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}

// IsReserved reports whether Windows takes the name, with any extension and in
// whatever case, for one of a device: CON, NUL, COM1, LPT¹… (Naming Files,
// Paths, and Namespaces in the Windows documentation).
func IsReserved(name string) bool {
	base, _, _ := strings.Cut(name, ".")
	base = strings.ToUpper(strings.TrimRight(base, " "))
	if slices.Contains(reservedNames, base) {
		return true
	}
	port, isPort := strings.CutPrefix(base, "COM")
	if !isPort {
		port, isPort = strings.CutPrefix(base, "LPT")
	}
	return isPort && slices.Contains([]string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "¹", "²", "³"}, port)
}

// EndsInDotOrSpace reports whether Windows would cut the end of the name off.
func EndsInDotOrSpace(name string) bool {
	return strings.HasSuffix(name, ".") || strings.HasSuffix(name, " ")
}

// Upcase returns the name as NTFS compares it: each unit of UTF-16 replaced
// by what the volume's $UpCase file has for it. That is older and simpler than
// unicode.ToUpper: one unit for one, and nothing beyond U+FFFF.
func Upcase(name string) string {
	i := 0
	for i < len(name) && name[i] < 0x80 && (name[i] < 'a' || name[i] > 'z') {
		i++
	}
	if i == len(name) {
		return name
	}
	b := make([]byte, 0, len(name)+8)
	for b = append(b, name[:i]...); i < len(name); {
		if c := name[i]; c < 0x80 {
			if c >= 'a' && c <= 'z' {
				c -= 'a' - 'A'
			}
			b = append(b, c)
			i++
			continue
		}
		r, n := decodeWTF8(name[i:])
		b = appendWTF8(b, upcase(r))
		i += n
	}
	return string(b)
}

// EqualFold reports whether a and b are the same name to NTFS.
func EqualFold(a, b string) bool { return a == b || Upcase(a) == Upcase(b) }

func upcase(r rune) rune {
	if r > 0xFFFF || utf16.IsSurrogate(r) {
		return r
	}
	i, found := slices.BinarySearchFunc(upcaseRuns, uint16(r), func(run upcaseRun, u uint16) int {
		switch {
		case run.hi < u:
			return -1
		case run.lo > u:
			return 1
		}
		return 0
	})
	if !found || (uint16(r)-upcaseRuns[i].lo)%upcaseRuns[i].stride != 0 {
		return r
	}
	return r + upcaseRuns[i].delta
}

// An upcaseRun gives every stride-th unit from lo to hi an upper case.
type upcaseRun struct {
	lo, hi, stride uint16
	delta          rune
}

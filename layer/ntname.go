package layer

import (
	"hash/maphash"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hostcompute/hcs/ntfs"
)

// Part is one of the three trees that a Windows layer consists of, the first
// component of its entries' names and of their paths in a layer directory.
type Part string

// The parts of a Windows layer.
const (
	FilesPart     Part = "Files"     // what drive C: holds
	HivesPart     Part = "Hives"     // registry hives: what the layer changes in those of its parents
	UtilityVMPart Part = "UtilityVM" // the system of the virtual machine that Hyper-V isolation uses
)

var parts = [...]Part{FilesPart, HivesPart, UtilityVMPart}

// SplitPart splits the name of a Windows layer's entry into its part and the
// path in that part, "." for the part itself.
func SplitPart(name string) (Part, string) {
	part, rest, below := strings.Cut(name, "/")
	if !below {
		rest = "."
	}
	return Part(part), rest
}

const (
	streamSuffix   = ":$DATA" // the only type that alternate streams have
	componentUnits = 255      // NTFS: UTF-16 code units of a name
	utilityFiles   = "UtilityVM/Files"
)

// ntForbidden are the bytes that no name on NTFS has, by [MS-FSA] 2.1.5.1 and
// https://learn.microsoft.com/windows/win32/fileio/naming-a-file.
var ntForbidden = func() (t [256]bool) {
	for c := range 0x20 {
		t[c] = true
	}
	for _, c := range `"*:<>?\|/` {
		t[c] = true
	}
	return t
}()

// checkComponent refuses a component that Windows cannot store, and one that
// Win32 takes for something else: a device, or the name without its last dot
// or space. Such names serve to hide, or were never meant for Windows.
func checkComponent(part string) error {
	ascii := true
	for i := range len(part) {
		c := part[i]
		if ntForbidden[c] {
			return invalid("name %q has a character that Windows does not allow: %q", part, c)
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	units := len(part)
	if !ascii {
		var ok bool
		if units, ok = countUnits(part); !ok {
			return invalid("name %q is not UTF-8", part)
		}
	}
	switch last := part[len(part)-1]; {
	case units > componentUnits:
		return invalid("name of %d characters, where NTFS has %d", units, componentUnits)
	case last == '.' || last == ' ':
		return invalid("name %q ends in a dot or space, which Win32 leaves out", part)
	case deviceName(part):
		return invalid("name %q is a device's", part)
	}
	return nil
}

// countUnits counts the UTF-16 code units of a name; it says false to what no
// UTF-16 becomes in Go, not even if it is ill-formed.
func countUnits(s string) (units int, ok bool) {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 0xf0:
			units += 2
		case c&0xc0 != 0x80: // not the second byte or later of a character
			units++
		}
	}
	return units, ntfs.ValidWTF8(s)
}

// deviceName says whether Win32 takes a name for a device's, whatever its
// extension: https://learn.microsoft.com/windows/win32/fileio/naming-a-file.
func deviceName(part string) bool {
	if i := strings.IndexByte(part, '.'); i >= 0 {
		part = part[:i]
	}
	part = strings.TrimRight(part, " ")
	switch len(part) {
	case 3:
		return strings.EqualFold(part, "con") || strings.EqualFold(part, "prn") ||
			strings.EqualFold(part, "aux") || strings.EqualFold(part, "nul")
	case 4, 5: // "¹", "²" and "³" count as digits
		if p := part[:3]; !strings.EqualFold(p, "com") && !strings.EqualFold(p, "lpt") {
			return false
		}
		d := part[3:]
		return d >= "1" && d <= "9" && len(d) == 1 || d == "¹" || d == "²" || d == "³"
	case 6, 7:
		return strings.EqualFold(part, "conin$") || strings.EqualFold(part, "conout$")
	}
	return false
}

// checkStream refuses what cannot be the name of an alternate stream.
func checkStream(name string) error {
	units, ok := countUnits(name)
	switch {
	case name == "":
		return invalid("alternate stream has no name")
	case strings.ContainsAny(name, ":/\\\x00"):
		return invalid("alternate stream %q has no proper name", name)
	case !ok:
		return invalid("name of alternate stream %q is not UTF-8", name)
	case units > componentUnits:
		return invalid("alternate stream has a name of %d characters, where NTFS has %d", units, componentUnits)
	}
	return nil
}

// splitStream cuts "path:stream" and "path:stream:$DATA" at the first colon.
func splitStream(name string) (path, stream string, isStream bool, err error) {
	path, stream, isStream = strings.Cut(name, ":")
	if !isStream {
		return name, "", false, nil
	}
	if strings.Contains(stream, "/") {
		return "", "", false, invalid("name has a colon in a directory's")
	}
	if n := len(stream) - len(streamSuffix); n >= 0 && strings.EqualFold(stream[n:], streamSuffix) {
		stream = stream[:n]
	}
	return path, stream, true, checkStream(stream)
}

// checkNTName judges a clean name by the rules of Windows layers.
func checkNTName(name string) error {
	for part := range components(name) {
		if err := checkComponent(part); err != nil {
			return err
		}
	}
	part, rest := SplitPart(name)
	switch part {
	case FilesPart:
		return nil
	case HivesPart:
		return checkHive(rest)
	case UtilityVMPart:
		if rest == "." || name == utilityFiles || strings.HasPrefix(name, utilityFiles+"/") {
			return nil
		}
		return invalid("below UtilityVM there is nothing but Files")
	}
	return invalid("name is outside of Files, Hives and UtilityVM")
}

// checkHive keeps a layer from bringing what a layer directory has in Hives
// of its own: the merged hives, which are named like a delta but for "_Base".
func checkHive(name string) error {
	if n := len(name) - len("_base"); n >= 0 && strings.EqualFold(name[n:], "_base") {
		return invalid("a layer holds no merged hives")
	}
	return nil
}

// hiveNames are the deltas that layers hold.
var hiveNames = [...]string{"System_Delta", "Software_Delta", "Sam_Delta", "Security_Delta", "DefaultUser_Delta"}

func knownHive(name string) bool {
	for _, h := range hiveNames {
		if strings.EqualFold(name, h) {
			return true
		}
	}
	return false
}

// checkPlace refuses links and whiteouts where Windows has none.
func checkPlace(what, name string) error {
	if strings.HasPrefix(name, "Files/") || strings.HasPrefix(name, utilityFiles+"/") {
		return nil
	}
	return invalid("%s is neither below Files nor below UtilityVM/Files", what)
}

// nameKey is a name's hash for which case does not count: simple folding, rune
// by rune, as NTFS's table of upper case letters has it but for a few letters
// that came later.
func nameKey(seed maphash.Seed, name string) uint64 {
	var buf [256]byte
	folded := buf[:0]
	for i := range len(name) {
		c := name[i]
		if c >= utf8.RuneSelf {
			return maphash.String(seed, foldString(name))
		}
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		folded = append(folded, c)
	}
	return maphash.Bytes(seed, folded)
}

// foldString is the way of names that are not ASCII. Bytes that are not UTF-8
// stay: surrogates without a partner are no letters.
func foldString(name string) string {
	var b strings.Builder
	b.Grow(len(name))
	for len(name) > 0 {
		r, n := utf8.DecodeRuneInString(name)
		if r == utf8.RuneError && n == 1 {
			b.WriteByte(name[0])
		} else {
			b.WriteRune(unicode.ToUpper(r))
		}
		name = name[n:]
	}
	return b.String()
}

package layer

import (
	"hash/maphash"
	"strings"
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
	streamSuffix = ":$DATA" // the only type that alternate streams have
	utilityFiles = "UtilityVM/Files"
)

// ntForbidden are the ASCII characters that no name on NTFS has.
var ntForbidden = func() (t [utf8.RuneSelf]bool) {
	for c := range t {
		t[c] = c < ' ' || strings.IndexByte(`"*:<>?\|/`, byte(c)) >= 0
	}
	return t
}()

// checkComponent refuses a component that Windows cannot store, and one that
// Win32 takes for something else: a device, or the name without its last dot
// or space. Such names serve to hide, or were never meant for Windows.
func checkComponent(part string) error {
	if !shortASCII(part) {
		if err := ntfs.CheckName(part); err != nil {
			return invalid("Windows has no such name: %w", err)
		}
	}
	switch {
	case ntfs.EndsInDotOrSpace(part):
		return invalid("name %q ends in a dot or space, which Win32 leaves out", part)
	case maybeDevice(part) && ntfs.IsReserved(part):
		return invalid("name %q is a device's", part)
	}
	return nil
}

// shortASCII says of most names, and fast, that they have nothing to object to.
func shortASCII(part string) bool {
	for i := range len(part) {
		if c := part[i]; c >= utf8.RuneSelf || ntForbidden[c] {
			return false
		}
	}
	return len(part) <= ntfs.MaxName
}

// maybeDevice says of most names, and fast, that they are no device's.
func maybeDevice(part string) bool {
	switch part[0] | 0x20 {
	case 'a', 'c', 'l', 'n', 'p':
		base, _, _ := strings.Cut(part, ".")
		return len(base) <= len("conout$") || strings.HasSuffix(base, " ")
	}
	return false
}

// checkStream refuses what cannot be the name of an alternate stream.
func checkStream(name string) error {
	if err := ntfs.CheckStreamName(name); err != nil {
		return invalid("alternate stream has no proper name: %w", err)
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
	if stream == "" {
		return "", "", false, invalid("alternate stream has no name")
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

// nameKey is a name's hash for which case does not count.
func nameKey(seed maphash.Seed, name string) uint64 {
	var buf [256]byte
	folded := buf[:0]
	for i := range len(name) {
		c := name[i]
		if c >= utf8.RuneSelf {
			return maphash.String(seed, ntfs.Upcase(name))
		}
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		folded = append(folded, c)
	}
	return maphash.Bytes(seed, folded)
}

package image

import (
	"net/netip"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The transports of a Ref.
const (
	TransportStore         = ""
	TransportOCI           = "oci"
	TransportOCIArchive    = "oci-archive"
	TransportDockerArchive = "docker-archive"
	TransportDocker        = "docker" // a registry
)

const (
	defaultTag = "latest"
	maxRef     = 4096 // bytes; a path of PATH_MAX is as long as it gets
	maxTag     = 128  // OCI distribution specification, "Pulling manifests"
	maxName    = 255
)

// A Ref says where an image is, or is to be.
type Ref struct {
	// Transport is one of the Transport constants; the store's is empty.
	Transport string
	// Path is the layout directory or the archive file; for the store and for
	// a registry the image's name without tag, in docker's short form
	// ("debian" for "docker.io/library/debian").
	Path string
	// Tag selects one of the images there. In a docker archive it is a name
	// with a tag ("debian:12"). Empty means the only image of an archive.
	Tag string
	// Digest, if not empty, selects a manifest by its digest, or, for a name
	// of the store that has no path, an image by its ID.
	Digest digest.Digest
}

// ParseRef parses a reference: "oci:DIR[:TAG]", "oci-archive:FILE[:TAG]",
// "docker-archive:FILE[:NAME[:TAG]]", each also with "@DIGEST" in the tag's
// place; "docker://NAME[:TAG][@DIGEST]" for a registry, where the slashes may
// be left out if NAME has one itself ("docker:24" is an image's name); or a
// name of the local store, "NAME[:TAG][@DIGEST]". As in umoci and skopeo a
// path ends at the first colon; a drive letter is not cut off.
// The default of TAG is "latest", except for archives, whose only image needs
// no tag. Errors are of class ErrInvalidArgument.
func ParseRef(s string) (Ref, error) {
	if err := checkRefText(s); err != nil {
		return Ref{}, err
	}
	transport, rest, found := strings.Cut(s, ":")
	switch {
	case found && isFileTransport(transport):
		return parseFileRef(s, transport, rest)
	case found && transport == TransportDocker && strings.Contains(rest, "/"):
		return parseRegistryRef(s, strings.TrimPrefix(rest, "//"))
	case strings.Contains(s, "://"):
		return Ref{}, invalid("parse image reference %q: transport %q is unknown (known are oci, oci-archive, docker-archive, docker, and names of the local store)", s, transport)
	}
	return parseName(s)
}

func isFileTransport(s string) bool {
	return s == TransportOCI || s == TransportOCIArchive || s == TransportDockerArchive
}

// ParseRegistryRef parses what names an image in a registry, with or without
// the transport: "docker://NAME[:TAG][@DIGEST]" or "NAME[:TAG][@DIGEST]".
func ParseRegistryRef(s string) (Ref, error) {
	r, err := ParseRef(s)
	switch {
	case err != nil:
		return Ref{}, err
	case r.Transport != TransportStore && r.Transport != TransportDocker, r.Path == "":
		return Ref{}, invalid("parse image reference %q: it is not a name in a registry", s)
	}
	r.Transport = TransportDocker
	return r, nil
}

func parseRegistryRef(whole, name string) (Ref, error) {
	r, err := parseName(name)
	if err == nil && r.Path == "" {
		err = invalid("it has no name")
	}
	if err != nil {
		return Ref{}, invalid("parse image reference %q: %w", whole, err)
	}
	r.Transport = TransportDocker
	return r, nil
}

// Repository returns the registry's host, with a port if it has one, and the
// name in it: what docker's tools leave out is added.
func (r Ref) Repository() (host, name string) {
	host, name, _ = strings.Cut(fullName(r.Path), "/")
	return host, name
}

func checkRefText(s string) error {
	if s == "" {
		return invalid("parse image reference: it is empty")
	}
	if len(s) > maxRef {
		return invalid("parse image reference %.40q…: it is longer than %d bytes", s, maxRef)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return invalid("parse image reference %q: it has control characters", s)
	}
	return nil
}

func parseFileRef(whole, transport, rest string) (Ref, error) {
	r := Ref{Transport: transport}
	rest, d, err := cutDigest(whole, rest)
	if err != nil {
		return Ref{}, err
	}
	r.Digest = d
	drive := 0
	if hasDrive(rest) {
		drive = 2
	}
	path, tag, tagged := strings.Cut(rest[drive:], ":")
	r.Path = rest[:drive] + path
	switch {
	case r.Path == "":
		return Ref{}, invalid("parse image reference %q: it has no path", whole)
	case tagged && d != "":
		return Ref{}, invalid("parse image reference %q: it has both a tag and a digest", whole)
	case tagged && transport == TransportDockerArchive:
		r.Tag, err = NormalName(tag)
		if err != nil {
			return Ref{}, invalid("parse image reference %q: %w", whole, err)
		}
	case tagged:
		if !validRefName(tag) {
			return Ref{}, invalid("parse image reference %q: tag %q is malformed", whole, tag)
		}
		r.Tag = tag
	case d == "" && transport == TransportOCI:
		r.Tag = defaultTag
	}
	return r, nil
}

// hasDrive reports whether s begins with a Windows drive and a separator.
func hasDrive(s string) bool {
	return len(s) >= 3 && s[1] == ':' && (s[2] == '\\' || s[2] == '/') &&
		('a' <= s[0]|0x20 && s[0]|0x20 <= 'z')
}

// cutDigest cuts "@sha256:…" from the end of s. An "@" that no digest follows
// belongs to the path.
func cutDigest(whole, s string) (string, digest.Digest, error) {
	i := strings.LastIndexByte(s, '@')
	if i < 0 || !(strings.HasPrefix(s[i+1:], "sha256:") || strings.HasPrefix(s[i+1:], "sha512:")) {
		return s, "", nil
	}
	d := digest.Digest(s[i+1:])
	if err := checkDigest(d); err != nil {
		return "", "", invalid("parse image reference %q: %w", whole, err)
	}
	return s[:i], d, nil
}

func parseName(s string) (Ref, error) {
	if d := digest.Digest(s); checkDigest(d) == nil {
		return Ref{Digest: d}, nil
	}
	rest, d, err := cutDigest(s, s)
	if err != nil {
		return Ref{}, err
	}
	name, tag := rest, ""
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.Contains(rest[i:], "/") {
		name, tag = rest[:i], rest[i+1:]
		if !validTag(tag) {
			return Ref{}, invalid("parse image reference %q: tag %q is malformed", s, tag)
		}
	}
	if tag == "" && d == "" {
		tag = defaultTag
	}
	name = shortName(name)
	if !validName(name) {
		return Ref{}, invalid("parse image reference %q: name %q is malformed (lower case letters, digits, and single separators are allowed)", s, name)
	}
	if isFileTransport(name) {
		return Ref{}, invalid("parse image reference %q: %s is a transport, not a name", s, name)
	}
	return Ref{Path: name, Tag: tag, Digest: d}, nil
}

// shortName removes what docker's tools leave out when they show a name.
func shortName(s string) string {
	for _, domain := range [...]string{"docker.io/", "index.docker.io/"} {
		s = strings.TrimPrefix(s, domain)
	}
	if rest, ok := strings.CutPrefix(s, "library/"); ok && !strings.Contains(rest, "/") {
		return rest
	}
	return s
}

// NormalName returns an image's name as the store and docker archives have
// it: short, and with a tag. "docker.io/library/debian" becomes
// "debian:latest".
func NormalName(s string) (string, error) {
	if err := checkRefText(s); err != nil {
		return "", err
	}
	r, err := parseName(s)
	if err != nil {
		return "", err
	}
	if r.Digest != "" {
		return "", invalid("parse image name %q: a digest cannot be a name", s)
	}
	return r.Path + ":" + r.Tag, nil
}

// String returns the reference in the form that ParseRef reads.
func (r Ref) String() string {
	var b strings.Builder
	if r.Transport != TransportStore {
		b.WriteString(r.Transport)
		b.WriteByte(':')
	}
	if r.Transport == TransportDocker {
		b.WriteString("//")
	}
	b.WriteString(r.Path)
	if r.Tag != "" {
		b.WriteByte(':')
		b.WriteString(r.Tag)
	}
	if r.Digest != "" {
		if b.Len() > 0 {
			b.WriteByte('@')
		}
		b.WriteString(string(r.Digest))
	}
	return b.String()
}

// Selector returns the part of the reference that [Resolve] wants: the tag,
// the digest after an "@", or nothing for the only image there is.
func (r Ref) Selector() string {
	switch {
	case r.Digest != "":
		return "@" + string(r.Digest)
	case r.Transport == TransportStore:
		return r.Path + ":" + r.Tag
	}
	return r.Tag
}

// validRefName judges org.opencontainers.image.ref.name by the grammar of the
// image specification ("Pre-Defined Annotation Keys").
func validRefName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if !validComponent(part, isAlnum, "-._:@+", "--") {
			return false
		}
	}
	return true
}

// validName judges an image's name without tag by the grammar of docker's
// references: an optional domain with a port, then components in lower case.
func validName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	first, rest, found := strings.Cut(s, "/")
	if found && (first == "localhost" || strings.ContainsAny(first, ".:") || first != strings.ToLower(first)) {
		if !validDomain(first) {
			return false
		}
		s = rest
	}
	for part := range strings.SplitSeq(s, "/") {
		if !validComponent(strings.ReplaceAll(part, "__", "_"), isLowerAlnum, "._", "-") {
			return false
		}
	}
	return true
}

func validDomain(s string) bool {
	if address, port, found := strings.Cut(s, "]"); found {
		ip, err := netip.ParseAddr(strings.TrimPrefix(address, "["))
		return err == nil && ip.Is6() && ip.Zone() == "" && s[0] == '[' && (port == "" || validPort(port))
	}
	host, port, found := strings.Cut(s, ":")
	if found && !validPort(":"+port) {
		return false
	}
	return validComponent(host, isAlnum, ".", "-")
}

func validPort(s string) bool {
	return len(s) > 1 && s[0] == ':' && strings.Trim(s[1:], "0123456789") == ""
}

// validComponent reports whether s is runs of alphanumeric characters with
// separators between them: one of single, or a run of the character that
// repeated is made of (of exactly its length if that is more than one).
func validComponent(s string, alnum func(byte) bool, single, repeated string) bool {
	for {
		n := 0
		for n < len(s) && alnum(s[n]) {
			n++
		}
		if n == 0 {
			return false
		}
		s = s[n:]
		if s == "" {
			return true
		}
		s = s[separator(s, single, repeated):]
	}
}

func separator(s, single, repeated string) int {
	if len(repeated) > 1 && strings.HasPrefix(s, repeated) {
		return len(repeated)
	}
	if len(repeated) == 1 && s[0] == repeated[0] {
		return len(s) - len(strings.TrimLeft(s, repeated))
	}
	if strings.IndexByte(single, s[0]) >= 0 {
		return 1
	}
	return 0
}

func isLowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
func isAlnum(c byte) bool      { return isLowerAlnum(c) || 'A' <= c && c <= 'Z' }

// validTag judges a tag: a word character, then at most 127 of these, dots
// and dashes.
func validTag(s string) bool {
	if s == "" || len(s) > maxTag || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

package image

import (
	"errors"
	"runtime"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// HostPlatform returns the platform whose images run here: Linux on this
// program's own architecture.
func HostPlatform() v1.Platform {
	return v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
}

// ParsePlatform parses "os/arch[/variant]", "arch[/variant]" for Linux, or "os" for this machine's architecture. A version of the system stands in parentheses
// behind its name, as containerd has it, or behind a colon at the end, as crane does: "windows(10.0.20348)/amd64",
// "windows/amd64:10.0.20348". It stands for the versions that begin with it, too.
func ParsePlatform(s string) (v1.Platform, error) {
	plain, version, err := cutVersion(s)
	if err != nil {
		return v1.Platform{}, err
	}
	p, err := parsePlain(plain)
	if err != nil {
		return v1.Platform{}, invalid("parse platform %q: it is not os[(version)]/arch[/variant]", s)
	}
	p.OSVersion = version
	return p, nil
}

// cutVersion takes the system's version out of a platform.
func cutVersion(s string) (plain, version string, err error) {
	plain, version, found := strings.Cut(s, ":")
	if before, rest, ok := strings.Cut(s, "("); ok {
		var after string
		if version, after, found = strings.Cut(rest, ")"); found {
			plain = before + after
		}
		found = found && strings.HasPrefix(after, "/")
	} else if !found {
		return s, "", nil
	}
	if !found || version == "" || strings.ContainsAny(version, "/:()") || strings.ContainsAny(plain, ":()") {
		return "", "", invalid("parse platform %q: it is not os[(version)]/arch[/variant]", s)
	}
	return plain, version, nil
}

func parsePlain(s string) (v1.Platform, error) {
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) == 1 && isSystem(parts[0]) {
		parts = append(parts, runtime.GOARCH)
	}
	if len(parts) == 1 || (len(parts) == 2 && strings.HasPrefix(parts[1], "v")) {
		parts = append([]string{"linux"}, parts...)
	}
	p := v1.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	if len(parts) > 3 || p.OS == "" || p.Architecture == "" {
		return v1.Platform{}, errNoPlatform
	}
	return normal(p), nil
}

// isSystem tells the names of systems that images are for from those of
// architectures.
func isSystem(name string) bool {
	return slices.Contains([]string{"linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "wasip1", "solaris", "plan9", "aix"}, name)
}

var errNoPlatform = errors.New("no platform")

func platformString(p v1.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	if p.OSVersion != "" {
		s += " (" + p.OSVersion + ")"
	}
	return s
}

// normal replaces the kernel's names of architectures by Go's, and drops a
// variant that is the architecture's first.
func normal(p v1.Platform) v1.Platform {
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	switch p.Architecture + "/" + p.Variant {
	case "amd64/v1", "arm64/v8", "arm64/8":
		p.Variant = ""
	case "arm/", "arm/7":
		p.Variant = "v7"
	case "arm/6":
		p.Variant = "v6"
	case "arm/5":
		p.Variant = "v5"
	}
	return p
}

// fit says how well an image for have runs on want: 0 not at all, else more
// is better. An image for a lower variant of the architecture runs on a
// higher one, and the nearest is the best.
func fit(have, want v1.Platform) int {
	have, want = normal(have), normal(want)
	if have.OS != want.OS || have.Architecture != want.Architecture {
		return 0
	}
	if want.OSVersion != "" && have.OSVersion != want.OSVersion && !strings.HasPrefix(have.OSVersion, want.OSVersion+".") {
		return 0
	}
	if have.Variant == want.Variant {
		return 1000
	}
	h, w := variantLevel(have), variantLevel(want)
	if h < 0 || w < 0 || h > w {
		return 0
	}
	return 1 + h
}

// variantLevel returns the number in a variant, -1 if there is none.
func variantLevel(p v1.Platform) int {
	if p.Variant == "" {
		switch p.Architecture {
		case "amd64":
			return 1
		case "arm64":
			return 8
		}
		return -1
	}
	digits := strings.TrimPrefix(p.Variant, "v")
	major, _, _ := strings.Cut(digits, ".")
	n, err := strconv.Atoi(major)
	if err != nil || n < 0 || n > 99 {
		return -1
	}
	return n
}

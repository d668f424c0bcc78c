package sys

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// OverlayLowers returns the lower directories of all overlay mounts that this process sees, by the names they were mounted
// with, except those that MountOverlay could not name (see there).
func OverlayLowers() ([]string, error) {
	data, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var all []string
	for line := range strings.Lines(string(data)) {
		// proc_pid_mountinfo(5): after " - " the type, the source and the file system's own options.
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		if f := strings.Fields(rest); len(f) == 3 && f[0] == "overlay" {
			all = append(all, lowersOf(f[2])...)
		}
	}
	return all, nil
}

// OverlayUpper returns the upper directory of the overlay mounts whose device number, "major:minor", it is. It is empty if this
// process sees none, or one without an upper directory.
func OverlayUpper(device string) (string, error) {
	data, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("list mounts: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		mount, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		m, f := strings.Fields(mount), strings.Fields(rest)
		if len(m) < 3 || m[2] != device || len(f) != 3 || f[0] != "overlay" {
			continue
		}
		for option := range strings.SplitSeq(f[2], ",") {
			if dir, ok := strings.CutPrefix(option, "upperdir="); ok {
				return unescapeMount(dir), nil
			}
		}
	}
	return "", nil
}

// lowersOf returns the directories in overlayfs's options, each in one of its own or all in one.
func lowersOf(options string) (dirs []string) {
	for option := range strings.SplitSeq(options, ",") {
		if dir, ok := strings.CutPrefix(option, "lowerdir+="); ok {
			dirs = append(dirs, unescapeMount(dir))
		} else if joined, ok := strings.CutPrefix(option, "lowerdir="); ok {
			for dir := range strings.SplitSeq(joined, ":") {
				dirs = append(dirs, unescapeMount(dir))
			}
		}
	}
	return dirs
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

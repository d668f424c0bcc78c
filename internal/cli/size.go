package cli

import (
	"fmt"
	"strconv"
	"strings"
)

// size is a number of bytes, which flags may give with a unit.
type size int64

func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return humanSize(int64(*s))
}

func (s *size) Type() string { return "bytes" }

func (s *size) Set(text string) error {
	n, err := parseSize(text)
	*s = size(n)
	return err
}

// parseSize reads "512m", "1.5g", "64KiB", "1024": the units are powers of
// 1024, as docker's are for memory.
func parseSize(text string) (int64, error) {
	number := strings.TrimRight(strings.ToLower(strings.TrimSpace(text)), "ib")
	shift := 0
	if n := len(number); n > 0 {
		if i := strings.IndexByte("kmgtp", number[n-1]); i >= 0 {
			number, shift = number[:n-1], 10*(i+1)
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f < 0 || f*float64(int64(1)<<shift) >= 1<<63 || strings.ContainsAny(number, "xp_inf") {
		return 0, fmt.Errorf("%q is not a size: give a number, with k, m or g behind it if need be", text)
	}
	return int64(f * float64(int64(1)<<shift)), nil
}

// humanSize is the size with three digits and a unit of powers of 1000, as
// docker shows images.
func humanSize(n int64) string { return withUnit(float64(n), 1000, "B", "kB", "MB", "GB", "TB", "PB") }

// binarySize is the size in powers of 1024, as docker shows memory.
func binarySize(n uint64) string {
	return withUnit(float64(n), 1024, "B", "KiB", "MiB", "GiB", "TiB", "PiB")
}

func withUnit(f, base float64, units ...string) string {
	i := 0
	for f >= base && i < len(units)-1 {
		f /= base
		i++
	}
	return strconv.FormatFloat(f, 'g', max(3, len(strconv.Itoa(int(f)))), 64) + units[i]
}

package cli

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// variables reads the flags --env-file and --env, the latter last because they
// count more.
func variables(files, flags []string) ([]string, error) {
	var list []string
	for _, name := range files {
		lines, err := readPairs(name)
		if err != nil {
			return nil, fmt.Errorf("read variables: %w", err)
		}
		for _, line := range lines {
			list = appendVariable(list, line)
		}
	}
	for _, v := range flags {
		list = appendVariable(list, v)
	}
	return list, nil
}

// appendVariable adds NAME=VALUE, or NAME as it is set here, if it is.
func appendVariable(list []string, v string) []string {
	if strings.Contains(v, "=") {
		return append(list, v)
	}
	if value, ok := os.LookupEnv(v); ok && v != "" {
		return append(list, v+"="+value)
	}
	return list
}

// readPairs reads NAME=VALUE, or NAME, from each line of the file, in docker's manner:
// nothing is quoted or expanded, and a line that begins with # is a comment.
func readPairs(name string) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []string
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimLeft(strings.TrimPrefix(lines.Text(), "\ufeff"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, _ := strings.Cut(line, "=")
		if key == "" || strings.ContainsAny(key, " \t") {
			return nil, fmt.Errorf("%s, line %d: %q is not a name", name, n, key)
		}
		list = append(list, line)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return list, nil
}

// lastOfEach keeps of variables that are set more than once the last value,
// where the first was.
func lastOfEach(env []string) []string {
	place := make(map[string]int, len(env))
	list := env[:0:0]
	for _, v := range env {
		key, _, _ := strings.Cut(v, "=")
		if i, ok := place[key]; ok {
			list[i] = v
			continue
		}
		place[key] = len(list)
		list = append(list, v)
	}
	return list
}

package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hostcompute/hcs/container"
)

// mounts reads the flags --mount, --volume and --tmpfs. What they show must be
// there: a directory made in its stead would hide a mistyped name.
func mounts(long, short, tmpfs []string) ([]container.Mount, error) {
	var list []container.Mount
	for _, text := range long {
		m, err := parseMount(text)
		if err != nil {
			return nil, fmt.Errorf("mount %q: %w", text, err)
		}
		list = append(list, m)
	}
	for _, text := range short {
		m, err := parseVolume(text)
		if err != nil {
			return nil, fmt.Errorf("volume %q: %w", text, err)
		}
		list = append(list, m)
	}
	for _, text := range tmpfs {
		m, err := parseTmpfs(text)
		if err != nil {
			return nil, fmt.Errorf("tmpfs %q: %w", text, err)
		}
		list = append(list, m)
	}
	return list, nil
}

// parseTmpfs reads TARGET[:OPTIONS], as mount(8) has them.
func parseTmpfs(text string) (container.Mount, error) {
	target, options, _ := strings.Cut(text, ":")
	m := container.Mount{Type: "tmpfs", Target: target}
	for option := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(option, "=")
		var err error
		switch key {
		case "", "rw", "nosuid", "nodev", "exec": // as it is
		case "ro":
			m.ReadOnly = true
		case "noexec":
			m.NoExec = true
		case "size":
			m.Size, err = parseSize(value)
		case "mode":
			m.Mode, err = parseMode(value)
		default:
			err = usage(fmt.Sprintf("unknown option %q: use size, mode, ro, noexec", option))
		}
		if err != nil {
			return m, err
		}
	}
	return m, nil
}

func parseMode(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 8, 12)
	if err != nil || n == 0 {
		return 0, usage(fmt.Sprintf("mode %q: give permissions in octal, such as 1777", text))
	}
	return uint32(n), nil
}

// parseVolume reads SOURCE:TARGET[:OPTIONS].
func parseVolume(text string) (container.Mount, error) {
	m := container.Mount{Type: "bind"}
	parts := strings.Split(text, ":")
	switch len(parts) {
	case 3:
		for option := range strings.SplitSeq(parts[2], ",") {
			switch option {
			case "ro":
				m.ReadOnly = true
			case "rw":
				m.ReadOnly = false
			case "z", "Z", "rprivate", "cached", "delegated", "consistent": // nothing is labelled, and no mount is passed on
			default:
				return m, usage(fmt.Sprintf("unknown option %q: use ro or rw", option))
			}
		}
	case 2:
	case 1:
		return m, usage("there are no volumes without a name: give SOURCE:TARGET, or --tmpfs TARGET")
	default:
		return m, usage("give SOURCE:TARGET or SOURCE:TARGET:ro")
	}
	m.Target = parts[1]
	var err error
	m.Source, err = sourcePath(parts[0])
	return m, err
}

// sourcePath makes a path absolute. A name alone would be docker's for a volume.
func sourcePath(text string) (string, error) {
	if !strings.ContainsAny(text, "/.") {
		return "", usage(fmt.Sprintf("%q is no path, and there are no named volumes: begin a directory's name with ./", text))
	}
	return filepath.Abs(text)
}

// parseMount reads KEY=VALUE,…, in which a value with a comma is quoted as in
// CSV.
func parseMount(text string) (container.Mount, error) {
	var m container.Mount
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil && !errors.Is(err, io.EOF) { // of nothing
		return m, err
	}
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		if err := setMountField(&m, strings.ToLower(key), value); err != nil {
			return m, err
		}
	}
	switch {
	case m.Target == "":
		return m, usage("no target given")
	case m.Type == "tmpfs" && m.Source != "":
		return m, usage("a tmpfs has no source")
	case m.Type == "tmpfs":
		return m, nil
	case m.Source == "":
		return m, usage("no source given")
	case m.Size != 0:
		return m, usage("only a tmpfs has a size")
	case m.Type == "":
		m.Type = "bind"
		m.Source, err = sourcePath(m.Source)
	default:
		m.Source, err = filepath.Abs(m.Source)
	}
	return m, err
}

func setMountField(m *container.Mount, key, value string) (err error) {
	switch key {
	case "type":
		switch value {
		case "bind", "tmpfs":
		case "volume":
			return usage(noVolumes)
		default:
			return usage(fmt.Sprintf("unknown type %q: use bind or tmpfs", value))
		}
		m.Type = value
	case "source", "src":
		m.Source = value
	case "target", "destination", "dst":
		m.Target = value
	case "readonly", "ro":
		m.ReadOnly = true
		if value != "" {
			m.ReadOnly, err = strconv.ParseBool(value)
		}
	case "iops":
		m.IOPS, err = strconv.ParseInt(value, 10, 64)
	case "bandwidth":
		m.Bandwidth, err = parseSize(value)
	case "tmpfs-size":
		m.Size, err = parseSize(value)
	case "tmpfs-mode":
		m.Mode, err = parseMode(value)
	case "consistency": // is always there
	case "bind-propagation":
		if value != "private" && value != "rprivate" {
			err = usage("no mount is passed on: bind-propagation is rprivate")
		}
	default:
		err = usage(fmt.Sprintf("unknown key %q: use type, source, target, readonly, iops, bandwidth, tmpfs-size, tmpfs-mode", key))
	}
	return err
}

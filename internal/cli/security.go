package cli

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/container"
)

// securityOptions are the flags that say what a container's processes may do.
type securityOptions struct {
	capAdd, capDrop, security []string
	devices, ulimits, sysctls []string
	userns                    string
}

func (o *securityOptions) addFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&o.capAdd, "cap-add", nil, "give root a `capability` more, or ALL")
	f.StringSliceVar(&o.capDrop, "cap-drop", nil, "take a `capability` from root, or ALL")
	f.StringArrayVar(&o.security, "security-opt", nil, "`no-new-privileges` or seccomp=unconfined")
	f.StringArrayVar(&o.devices, "device", nil, "let processes use a device, `SOURCE[:TARGET][:rwm]`")
	f.StringArrayVar(&o.ulimits, "ulimit", nil, "limit of each process, `NAME=SOFT[:HARD]`")
	f.StringArrayVar(&o.sysctls, "sysctl", nil, "set a parameter of the container's namespaces, `NAME=VALUE`")
	f.StringVar(&o.userns, "userns", "host", "be users of the host's, or of a user `namespace`: host, auto, or UID:SIZE")
}

func (o *securityOptions) apply(s *container.Spec) error {
	s.Security.CapAdd, s.Security.CapDrop = o.capAdd, o.capDrop
	for _, text := range o.security {
		if err := setSecurity(&s.Security, text); err != nil {
			return err
		}
	}
	for _, text := range o.devices {
		d, err := parseDevice(text)
		if err != nil {
			return fmt.Errorf("device %q: %w", text, err)
		}
		s.Devices = append(s.Devices, d)
	}
	for _, text := range o.ulimits {
		u, err := parseUlimit(text)
		if err != nil {
			return fmt.Errorf("ulimit %q: %w", text, err)
		}
		s.Ulimits = append(s.Ulimits, u)
	}
	var err error
	if s.Sysctls, err = parseSysctls(o.sysctls); err != nil {
		return err
	}
	s.IDs, err = parseUserns(o.userns)
	return err
}

// parseSysctls reads NAME=VALUE.
func parseSysctls(list []string) (map[string]string, error) {
	var sysctls map[string]string
	for _, text := range list {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, usage(fmt.Sprintf("sysctl %q: give NAME=VALUE", text))
		}
		if sysctls == nil {
			sysctls = make(map[string]string)
		}
		sysctls[name] = value
	}
	return sysctls, nil
}

// parseUserns reads host, auto or UID:SIZE.
func parseUserns(text string) (container.IDs, error) {
	switch text {
	case "", "host":
		return container.IDs{}, nil
	case "auto":
		return container.AutoIDs, nil
	}
	first, size, _ := strings.Cut(text, ":")
	uid, err1 := strconv.ParseUint(first, 10, 32)
	count, err2 := strconv.ParseUint(size, 10, 32)
	if err1 != nil || err2 != nil || uid == 0 || count == 0 {
		return container.IDs{}, usage(fmt.Sprintf("user namespace %q: give host, auto, or UID:SIZE, such as 100000:65536, with a UID above 0", text))
	}
	return container.IDs{First: uint32(uid), Size: uint32(count)}, nil
}

// setSecurity takes KEY[=VALUE] or, as older programs have it, KEY:VALUE.
func setSecurity(s *container.Security, text string) error {
	i := strings.IndexAny(text, "=:")
	key, value := text, ""
	if i >= 0 {
		key, value = text[:i], text[i+1:]
	}
	switch {
	case key == "no-new-privileges" && slices.Contains([]string{"", "true", "false"}, value):
		s.NoNewPrivileges = value != "false"
	case key == "seccomp" && value == "unconfined":
		s.Seccomp = container.SeccompUnconfined
	case key == "seccomp" && value == "builtin", key == "apparmor" && value == "unconfined", key == "label" && value == "disable": // as it is
	default:
		return usage(fmt.Sprintf("unknown security option %q: use no-new-privileges or seccomp=unconfined", text))
	}
	return nil
}

// parseDevice reads SOURCE[:TARGET][:ACCESS].
func parseDevice(text string) (container.Device, error) {
	parts := strings.Split(text, ":")
	d := container.Device{Source: parts[0]}
	if n := len(parts); n > 1 && strings.Trim(parts[n-1], "rwm") == "" {
		d.Access, parts = parts[n-1], parts[:n-1]
	}
	switch len(parts) {
	case 1:
	case 2:
		d.Target = parts[1]
	default:
		return d, usage("give SOURCE, SOURCE:TARGET or SOURCE:TARGET:rwm")
	}
	if !filepath.IsAbs(d.Source) {
		return d, usage("the device must be an absolute path")
	}
	return d, nil
}

// parseUlimit reads NAME=SOFT[:HARD], in which -1 and unlimited are no limit.
func parseUlimit(text string) (container.Ulimit, error) {
	name, limits, ok := strings.Cut(text, "=")
	soft, hard, both := strings.Cut(limits, ":")
	if !both {
		hard = soft
	}
	u := container.Ulimit{Name: name}
	var err1, err2 error
	u.Soft, err1 = parseLimit(soft)
	u.Hard, err2 = parseLimit(hard)
	if !ok || err1 != nil || err2 != nil {
		return u, usage("give NAME=SOFT or NAME=SOFT:HARD, such as nofile=1024:2048")
	}
	return u, nil
}

func parseLimit(text string) (int64, error) {
	if text == "unlimited" {
		return container.Unlimited, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

// parseLabels reads KEY[=VALUE].
func parseLabels(list []string) (map[string]string, error) {
	var labels map[string]string
	for _, text := range list {
		key, value, _ := strings.Cut(text, "=")
		if key == "" {
			return nil, usage(fmt.Sprintf("label %q: it has no name", text))
		}
		if labels == nil {
			labels = make(map[string]string)
		}
		labels[key] = value
	}
	return labels, nil
}

// parseLog reads docker's options for logs.
func parseLog(list []string) (container.Log, error) {
	var l container.Log
	for _, text := range list {
		key, value, _ := strings.Cut(text, "=")
		var err error
		switch {
		case key == "max-size" && value == "-1":
			l.MaxSize = -1
		case key == "max-size":
			if l.MaxSize, err = parseSize(value); err == nil && l.MaxSize == 0 {
				err = usage("give a size above 0, or -1 for no limit")
			}
		case key == "max-file":
			if l.MaxFiles, err = strconv.Atoi(value); err != nil || l.MaxFiles < 1 {
				err = usage("give a number above 0")
			}
		default:
			err = usage("use max-size=SIZE or max-file=N")
		}
		if err != nil {
			return l, fmt.Errorf("log option %q: %w", text, err)
		}
	}
	return l, nil
}

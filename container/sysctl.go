package container

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hostcompute/hcs/internal/wire"
)

// ipcSysctls are the parameters of an ipc namespace (ipc_namespaces(7)), and
// the one of a uts namespace that is not the host name, which Spec.Hostname is.
var ipcSysctls = []string{
	"kernel.domainname", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
	"kernel.shmmni", "kernel.shm_rmid_forced",
}

func (s *Spec) checkSysctls() error {
	for name, value := range s.Sysctls {
		switch path := sysctlPath(name); {
		case strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./@:") != "" ||
			slices.Contains(strings.Split(path, "/"), "") || slices.Contains(strings.Split(path, "/"), ".."):
			return fmt.Errorf("sysctl %q: not the name of one", name)
		case strings.Contains(value, "\x00"):
			return fmt.Errorf("sysctl %s: value %q has a zero byte", name, value)
		case strings.HasPrefix(path, "net/") && s.Network == NetworkHost:
			return fmt.Errorf("sysctl %s: with the host's network it would be the host's", name)
		case strings.HasPrefix(path, "net/"), strings.HasPrefix(path, "fs/mqueue/"),
			slices.Contains(ipcSysctls, strings.ReplaceAll(path, "/", ".")):
		default:
			return fmt.Errorf("sysctl %s: it is the whole machine's, not a namespace's (there are net.*, fs.mqueue.*, %s)",
				name, strings.Join(ipcSysctls, ", "))
		}
	}
	return nil
}

// sysctlPath returns the name of the parameter's file below /proc/sys. As
// sysctl(8) has it, slashes may stand for dots, and dots for slashes then:
// "net/ipv4/conf/eth0.1/forwarding" is that of a device with a dot.
func sysctlPath(name string) string {
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' {
		return name
	}
	return strings.NewReplacer(".", "/", "/", ".").Replace(name)
}

func nativeSysctls(sysctls map[string]string) []wire.Sysctl {
	var list []wire.Sysctl
	for _, name := range slices.Sorted(maps.Keys(sysctls)) {
		list = append(list, wire.Sysctl{Path: sysctlPath(name), Value: sysctls[name]})
	}
	return list
}

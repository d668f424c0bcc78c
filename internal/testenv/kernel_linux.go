package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"unsafe"
)

// System call numbers from 424 on are the same on all architectures Go has (include/uapi/asm-generic/unistd.h). This
// package asks the kernel itself, so that a fault in internal/sys cannot make its own tests skip.
const (
	sysOpenTree     = 428
	sysFsopen       = 430
	sysFsconfig     = 431
	sysPidfdOpen    = 434
	sysOpenat2      = 437
	sysMountSetattr = 442

	fsconfigSetString = 1
	resolveInRoot     = 0x10
)

func probe(f Feature) error {
	p, ok := map[Feature]func() error{
		MountAPI:        func() error { return probeFS("tmpfs", "size", "4k") },
		Overlay:         func() error { return probeFS("overlay", "lowerdir+", "/") },
		EROFS:           func() error { return probeFS("erofs", "source", "none") },
		Openat2:         probeOpenat2,
		PidFD:           probePidFD,
		MountNamespaces: func() error { return probeClone(syscall.CLONE_NEWNS) },
		NetNamespaces:   func() error { return probeClone(syscall.CLONE_NEWNET) },
		UserNamespaces:  func() error { return probeClone(syscall.CLONE_NEWUSER) },
		MappedMounts:    probeMappedMounts,
		Seccomp:         probeSeccomp,
		Cgroups:         probeCgroups,
		LoopDevices:     probeLoop,
	}[f]
	if !ok {
		return errors.New("no probe for this feature")
	}
	return p()
}

// probeFS opens a file system context and sets one option, and mounts nothing.
func probeFS(fstype, key, value string) error {
	name, err := syscall.BytePtrFromString(fstype)
	if err != nil {
		return err
	}
	const cloexec = 1
	fd, _, errno := syscall.Syscall(sysFsopen, uintptr(unsafe.Pointer(name)), cloexec, 0)
	if errno != 0 {
		return os.NewSyscallError("fsopen "+fstype, errno)
	}
	defer syscall.Close(int(fd))
	k, err := syscall.BytePtrFromString(key)
	if err != nil {
		return err
	}
	v, err := syscall.BytePtrFromString(value)
	if err != nil {
		return err
	}
	_, _, errno = syscall.Syscall6(sysFsconfig, fd, fsconfigSetString,
		uintptr(unsafe.Pointer(k)), uintptr(unsafe.Pointer(v)), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("fsconfig "+fstype+" "+key, errno)
	}
	return nil
}

func probeOpenat2() error {
	root := []byte{'/', 0}
	how := struct{ flags, mode, resolve uint64 }{syscall.O_DIRECTORY | syscall.O_CLOEXEC, 0, resolveInRoot}
	cwd := -100 // AT_FDCWD
	fd, _, errno := syscall.Syscall6(sysOpenat2, uintptr(cwd), uintptr(unsafe.Pointer(&root[0])),
		uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("openat2", errno)
	}
	return syscall.Close(int(fd))
}

func probePidFD() error {
	fd, _, errno := syscall.Syscall(sysPidfdOpen, uintptr(os.Getpid()), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("pidfd_open", errno)
	}
	return syscall.Close(int(fd))
}

// probeClone makes the namespace for a child. A thread of this process that made one could be the main thread, which
// /proc/self stands for and which Go never ends.
func probeClone(flag uintptr) error {
	child, err := lookPath("true")
	if err != nil {
		return err
	}
	cmd := exec.Command(child)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flag}
	return cmd.Run()
}

// probeMappedMounts maps the owners of another mount of the temporary directory, which is nowhere attached.
func probeMappedMounts() error {
	cat, err := lookPath("cat")
	if err != nil {
		return err
	}
	holder := exec.Command(cat) // stays until its input ends
	holder.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: 1 << 31, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: 1 << 31, Size: 1}},
	}
	input, err := holder.StdinPipe()
	if err != nil {
		return err
	}
	if err := holder.Start(); err != nil {
		return err
	}
	defer func() { _, _ = input.Close(), holder.Wait() }()
	users, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", holder.Process.Pid))
	if err != nil {
		return err
	}
	defer users.Close()
	return mapOwners(os.TempDir(), users)
}

func mapOwners(dir string, users *os.File) error {
	name, err := syscall.BytePtrFromString(dir)
	if err != nil {
		return err
	}
	const cwd, clone, cloexec = -100, 1, syscall.O_CLOEXEC
	at := cwd
	fd, _, errno := syscall.Syscall(sysOpenTree, uintptr(at), uintptr(unsafe.Pointer(name)), clone|cloexec)
	if errno != 0 {
		return os.NewSyscallError("open_tree", errno)
	}
	defer syscall.Close(int(fd))
	const emptyPath, idmap = 0x1000, 0x100000
	attr := struct{ set, clear, propagation, users uint64 }{set: idmap, users: uint64(users.Fd())}
	_, _, errno = syscall.Syscall6(sysMountSetattr, fd, uintptr(unsafe.Pointer(new(byte))), emptyPath,
		uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return os.NewSyscallError("mount_setattr", errno)
	}
	return nil
}

func probeSeccomp() error {
	actions, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil {
		return err
	}
	if !bytes.Contains(actions, []byte("errno")) {
		return fmt.Errorf("no errno among the actions %q", actions)
	}
	return nil
}

func probeCgroups() error {
	mounts, err := readMounts()
	if err != nil {
		return err
	}
	err = errors.New("no hierarchy has a memory controller")
	for _, m := range mounts {
		if !m.hasController("memory") {
			continue
		}
		const writable = 2 // W_OK
		if err = syscall.Access(m.point, writable); err == nil {
			return nil
		}
	}
	return err
}

func (m mount) hasController(name string) bool {
	switch m.fstype {
	case "cgroup":
		return strings.Contains(","+m.super+",", ","+name+",")
	case "cgroup2":
		controllers, err := os.ReadFile(m.point + "/cgroup.controllers")
		return err == nil && bytes.Contains(controllers, []byte(name))
	}
	return false
}

func probeLoop() error {
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

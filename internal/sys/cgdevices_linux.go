package sys

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deviceRule is one device, or many, that processes may use.
type deviceRule struct {
	kind         uint32 // BPF_DEVCG_DEV_*
	access       uint32 // BPF_DEVCG_ACC_*
	major, minor uint32
	anyMajor     bool
	anyMinor     bool
}

// parseDeviceRule reads "c 1:3 rwm", as the v1 controller's files have it
// (Documentation/admin-guide/cgroup-v1/devices.rst).
func parseDeviceRule(text string) (deviceRule, error) {
	r := deviceRule{}
	bad := fmt.Errorf("device rule %q: not like \"c 1:3 rwm\"", text)
	f := strings.Fields(text)
	if len(f) != 3 {
		return r, bad
	}
	kinds := map[string]uint32{"c": unix.BPF_DEVCG_DEV_CHAR, "b": unix.BPF_DEVCG_DEV_BLOCK}
	r.kind = kinds[f[0]]
	major, minor, ok := strings.Cut(f[1], ":")
	var err1, err2 error
	r.major, r.anyMajor, err1 = deviceNumber(major)
	r.minor, r.anyMinor, err2 = deviceNumber(minor)
	bits := map[rune]uint32{'r': unix.BPF_DEVCG_ACC_READ, 'w': unix.BPF_DEVCG_ACC_WRITE, 'm': unix.BPF_DEVCG_ACC_MKNOD}
	for _, c := range f[2] {
		if bits[c] == 0 {
			return r, bad
		}
		r.access |= bits[c]
	}
	if !ok || r.kind == 0 || err1 != nil || err2 != nil {
		return r, bad
	}
	return r, nil
}

func deviceNumber(s string) (n uint32, any bool, err error) {
	if s == "*" {
		return 0, true, nil
	}
	v, err := strconv.ParseUint(s, 10, 31)
	return uint32(v), false, err
}

// bpfInstruction is struct bpf_insn (include/uapi/linux/bpf.h).
type bpfInstruction struct {
	code      uint8
	registers uint8 // destination, and above it source
	offset    int16
	immediate int32
}

const (
	bpfLoadWord  = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	bpfMove      = unix.BPF_ALU64 | unix.BPF_MOV
	bpfMove32    = unix.BPF_ALU | unix.BPF_MOV
	bpfAnd32     = unix.BPF_ALU | unix.BPF_AND
	bpfRight32   = unix.BPF_ALU | unix.BPF_RSH
	bpfNotEqual  = unix.BPF_JMP | unix.BPF_JNE
	bpfReturn    = unix.BPF_JMP | unix.BPF_EXIT
	bpfConstant  = unix.BPF_K
	bpfRegister  = unix.BPF_X
	bpfKindBits  = 0xffff
	bpfAccessPos = 16
)

// Registers of the program below: 0 is the result, 1 the context that the
// kernel gives.
const (
	regResult, regContext, regKind, regAccess, regMajor, regMinor, regScratch = 0, 1, 2, 3, 4, 5, 6
)

// deviceProgram decides like the v1 controller does: an access is granted if
// one rule has all that it asks for. The context is struct bpf_cgroup_dev_ctx:
// access_type, with the access in its upper half, major, minor.
func deviceProgram(rules []deviceRule) []bpfInstruction {
	p := []bpfInstruction{
		{code: bpfLoadWord, registers: regKind | regContext<<4},
		{code: bpfMove32 | bpfRegister, registers: regAccess | regKind<<4},
		{code: bpfAnd32 | bpfConstant, registers: regKind, immediate: bpfKindBits},
		{code: bpfRight32 | bpfConstant, registers: regAccess, immediate: bpfAccessPos},
		{code: bpfLoadWord, registers: regMajor | regContext<<4, offset: 4},
		{code: bpfLoadWord, registers: regMinor | regContext<<4, offset: 8},
	}
	for _, r := range rules {
		p = append(p, r.instructions()...)
	}
	return append(p, result(0)...)
}

func result(v int32) []bpfInstruction {
	return []bpfInstruction{{code: bpfMove | bpfConstant, registers: regResult, immediate: v}, {code: bpfReturn}}
}

// instructions grant what the rule has, and go on behind their end otherwise.
func (r *deviceRule) instructions() []bpfInstruction {
	differs := func(register uint8, v uint32) bpfInstruction {
		return bpfInstruction{code: bpfNotEqual | bpfConstant, registers: register, immediate: int32(v)}
	}
	const all = unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE | unix.BPF_DEVCG_ACC_MKNOD
	p := []bpfInstruction{
		differs(regKind, r.kind),
		{code: bpfMove32 | bpfRegister, registers: regScratch | regAccess<<4},
		{code: bpfAnd32 | bpfConstant, registers: regScratch, immediate: int32(all &^ r.access)},
		differs(regScratch, 0), // it asks for more
	}
	if !r.anyMajor {
		p = append(p, differs(regMajor, r.major))
	}
	if !r.anyMinor {
		p = append(p, differs(regMinor, r.minor))
	}
	p = append(p, result(1)...)
	for i := range p {
		if p[i].code == bpfNotEqual|bpfConstant {
			p[i].offset = int16(len(p) - i - 1)
		}
	}
	return p
}

// attachDeviceRules has the kernel ask a program of these rules about every
// device that is opened or made in the v2 group at dir.
func attachDeviceRules(dir string, texts []string) error {
	group, err := OpenAt(CWD, dir, OpenDirectory, 0)
	if err != nil {
		return err
	}
	defer func() { _ = Close(group) }()
	return attachDeviceProgram(group, texts)
}

func attachDeviceProgram(group int, texts []string) error {
	rules := make([]deviceRule, len(texts))
	for i, text := range texts {
		var err error
		if rules[i], err = parseDeviceRule(text); err != nil {
			return err
		}
	}
	program, err := loadDeviceProgram(deviceProgram(rules))
	if err != nil {
		return fmt.Errorf("load the program of the device rules: %w", err)
	}
	defer func() { _ = Close(program) }()
	if err := programOf(unix.BPF_PROG_ATTACH, group, program, unix.BPF_F_ALLOW_MULTI); err != nil {
		return fmt.Errorf("attach the program of the device rules: %w", err)
	}
	return nil
}

// programOf attaches or detaches a program.
func programOf(command, group, program int, flags uint32) error {
	attr := struct{ target, program, kind, flags uint32 }{ // of BPF_PROG_ATTACH in union bpf_attr
		uint32(group), uint32(program), unix.BPF_CGROUP_DEVICE, flags,
	}
	_, err := bpf(command, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// replaceDeviceRules has a program of these rules asked instead of those that
// are. For a moment both are, and only what both allow is.
func replaceDeviceRules(dir string, texts []string) error {
	group, err := OpenAt(CWD, dir, OpenDirectory, 0)
	if err != nil {
		return err
	}
	defer func() { _ = Close(group) }()
	old, err := devicePrograms(group)
	if err != nil {
		return fmt.Errorf("list the programs of the device rules: %w", err)
	}
	if err := attachDeviceProgram(group, texts); err != nil {
		return err
	}
	var errs []error
	for _, id := range old {
		errs = append(errs, detachProgram(group, id))
	}
	return errors.Join(errs...)
}

func detachProgram(group int, id uint32) error {
	attr := struct{ id, next, flags uint32 }{id: id} // of BPF_PROG_GET_FD_BY_ID
	program, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err == nil {
		err = programOf(unix.BPF_PROG_DETACH, group, program, 0)
		_ = Close(program)
	}
	if err != nil {
		return fmt.Errorf("detach program %d of the device rules: %w", id, err)
	}
	return nil
}

// devicePrograms returns the numbers of the programs that are attached to a
// group.
func devicePrograms(group int) ([]uint32, error) {
	var ids [64]uint32 // BPF_CGROUP_MAX_PROGS in kernel/bpf/cgroup.c
	attr := struct {   // of BPF_PROG_QUERY in union bpf_attr
		target, kind, flags, attached uint32
		ids                           uint64
		count                         uint32
		_                             uint32
	}{target: uint32(group), kind: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids))), count: uint32(len(ids))}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(&ids)
	if err != nil {
		return nil, err
	}
	return ids[:attr.count], nil
}

func loadDeviceProgram(p []bpfInstruction) (fd int, err error) {
	license := [...]byte{'A', 'p', 'a', 'c', 'h', 'e', 0}
	if len(p) > math.MaxInt16 {
		return -1, unix.E2BIG
	}
	attr := struct { // of BPF_PROG_LOAD in union bpf_attr
		kind, count           uint32
		instructions, license uint64
		_                     [4]uint32
	}{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(p)),
		instructions: uint64(uintptr(unsafe.Pointer(&p[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	fd, err = bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(p)
	runtime.KeepAlive(&license)
	return fd, err
}

func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	return retry(func() (int, error) {
		n, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
		if errno != 0 {
			return -1, errno
		}
		return int(n), nil
	})
}

package seccomp

import (
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// number is a system call of an architecture.
type number struct {
	name string
	nr   uint32
}

// architecture is a way of calling the kernel.
type architecture struct {
	audit uint32 // AUDIT_ARCH_*, in include/uapi/linux/audit.h
	list  []number
	x32   bool // list is seen through x32's eyes
}

// architectures are those that the names are known of.
var architectures = map[specs.Arch]architecture{
	specs.ArchX86_64:  {audit: 0xc000003e, list: numbersAMD64},
	specs.ArchX32:     {audit: 0xc000003e, list: numbersAMD64, x32: true},
	specs.ArchX86:     {audit: 0x40000003, list: numbers386},
	specs.ArchAARCH64: {audit: 0xc00000b7, list: numbersARM64},
	specs.ArchARM:     {audit: 0x40000028, list: numbersARM},
}

// native are the architectures of Go's names.
var native = map[string]specs.Arch{"amd64": specs.ArchX86_64, "arm64": specs.ArchAARCH64}

// Supported reports whether there are programs for this machine.
func Supported() bool { return native[runtime.GOARCH] != "" }

// x32Bit marks the numbers of x32 (arch/x86/include/uapi/asm/unistd.h).
const x32Bit = 0x40000000

// x32First is the number of the first of x32Names; the others follow.
const x32First = 512

// x32Names are the calls that x32 has numbers of its own for
// (arch/x86/entry/syscalls/syscall_64.tbl).
var x32Names = []string{
	"rt_sigaction", "rt_sigreturn", "ioctl", "readv", "writev", "recvfrom", "sendmsg", "recvmsg", "execve", "ptrace",
	"rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo", "sigaltstack", "timer_create", "mq_notify", "kexec_load",
	"waitid", "set_robust_list", "get_robust_list", "vmsplice", "move_pages", "preadv", "pwritev", "rt_tgsigqueueinfo",
	"recvmmsg", "sendmmsg", "process_vm_readv", "process_vm_writev", "setsockopt", "getsockopt", "io_setup", "io_submit",
	"execveat", "preadv2", "pwritev2",
}

// number finds a system call by its name.
func (a architecture) number(name string) (nr uint32, ok bool) {
	i, ok := slices.BinarySearchFunc(a.list, name, func(n number, name string) int { return strings.Compare(n.name, name) })
	if !ok {
		return 0, false
	}
	if !a.x32 {
		return a.list[i].nr, true
	}
	if own := slices.Index(x32Names, name); own >= 0 {
		return x32Bit | x32First + uint32(own), true
	}
	return x32Bit | a.list[i].nr, true
}

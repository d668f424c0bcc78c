package agent

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hostcompute/hcs/internal/wire"
)

// Limits that this process could not work under are the processes' alone. Go
// sets none between fork and execute, so this program is executed first, as the
// user that the process is of; it sets them and becomes the process.

// limitArgument, as its first, tells the agent to do that. The limits follow,
// the program, and its arguments.
const limitArgument = "limit"

// envMark, behind a number of its own, is before each variable: so none is taken
// for one of the Go runtime's, nor two of the same name for one.
const envMark = "_"

// launcherEnv keeps the launcher to few threads, which count as processes, and
// to few words where it cannot have them.
var launcherEnv = []string{"GOMAXPROCS=1", "GOGC=off", "GOTRACEBACK=none"}

// report is the launcher's descriptor on which it tells aboutToRun, and, if it
// comes to that, what has failed: the place of the limit, or programFailed, and
// the error number.
const report = 3

const (
	aboutToRun    = 255
	programFailed = 254
)

// launchTime is how long a launcher is waited for. It takes milliseconds; a
// process of the same user may stop it.
const launchTime = 10 * time.Second

// launch is the way of a process by a launcher.
type launch struct {
	ours, theirs int
	deadline     time.Time
}

// newLaunch changes what is to be started.
func newLaunch(limits []wire.Rlimit, path *string, args *[]string, attr *syscall.ProcAttr) (*launch, error) {
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	l := &launch{ours: ends[0], theirs: ends[1]}
	env := slices.Clone(launcherEnv)
	for i, v := range attr.Env {
		env = append(env, strconv.Itoa(i)+envMark+v)
	}
	attr.Env, attr.Files = env, append(attr.Files, uintptr(l.theirs))
	*args = append([]string{"hcs-agent", limitArgument, formatLimits(limits), *path}, *args...)
	*path = "/proc/self/exe"
	return l, nil
}

func (l *launch) close() {
	for _, fd := range []*int{&l.ours, &l.theirs} {
		if *fd >= 0 {
			_ = syscall.Close(*fd)
		}
		*fd = -1
	}
}

// await returns when the launcher has become the process, or what kept it from
// that.
func (l *launch) await(path string, limits []wire.Rlimit) *wire.Failure {
	_ = syscall.Close(l.theirs)
	l.theirs, l.deadline = -1, time.Now().Add(launchTime)
	var b [2]byte
	n, err := l.read(b[:])
	if err == nil && n == 0 {
		return &wire.Failure{Class: wire.Internal, Text: "start " + path + ": what sets its limits has ended: the limit of processes may be too low for it"}
	}
	if err == nil && b[0] == aboutToRun {
		n, err = l.read(b[:])
	}
	if err != nil || n < len(b) {
		return nil // it runs, or somebody keeps it from that
	}
	doing := "start " + path
	if i := int(b[0]); i < len(limits) {
		doing += ": set " + limits[i].Name
	}
	return failure(syscall.Errno(b[1]), doing)
}

// read does not begin to wait anew when a signal interrupts it, which somebody
// in the container may send all the time.
func (l *launch) read(b []byte) (int, error) {
	for {
		left := time.Until(l.deadline)
		if left < time.Millisecond { // none is for ever
			return 0, syscall.EAGAIN
		}
		timeout := syscall.NsecToTimeval(int64(left))
		if err := syscall.SetsockoptTimeval(l.ours, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &timeout); err != nil {
			return 0, err
		}
		if n, err := syscall.Read(l.ours, b); err != syscall.EINTR {
			return n, err
		}
	}
}

// becomeLimited is the launcher, with its arguments from the limits on. It
// returns only if it fails.
func becomeLimited(args []string) int {
	syscall.CloseOnExec(report)
	if len(args) < 3 {
		return 1
	}
	var env []string
	for _, v := range os.Environ() {
		number, v, _ := strings.Cut(v, envMark)
		if _, err := strconv.Atoi(number); err == nil {
			env = append(env, v)
		}
	}
	reserve(args, env)
	which, err := setLimits(args[0])
	if err == nil {
		_, _ = syscall.Write(report, []byte{aboutToRun})
		which, err = programFailed, syscall.Exec(args[1], args[2:], env)
	}
	errno, _ := errors.AsType[syscall.Errno](err)
	_, _ = syscall.Write(report, []byte{which, byte(errno)})
	return 1
}

// reserve has the Go runtime keep memory that is free: under the limits it may
// not get any more for what is still to be done, which takes copies of the
// program's arguments and variables, and would give up.
func reserve(args, env []string) {
	size := 1 << 20
	for _, s := range slices.Concat(args, env) {
		size += 2 * (len(s) + 16)
	}
	runtime.KeepAlive(make([]byte, size)) // for whose sake it is not left out; then it is garbage
	runtime.GC()
}

// formatLimits writes NUMBER:SOFT:HARD for each.
func formatLimits(limits []wire.Rlimit) string {
	words := make([]string, len(limits))
	for i, l := range limits {
		words[i] = strconv.FormatUint(uint64(l.Resource), 10) + ":" + strconv.FormatUint(l.Soft, 10) + ":" + strconv.FormatUint(l.Hard, 10)
	}
	return strings.Join(words, ",")
}

// setLimits sets what formatLimits wrote. It returns which failed.
func setLimits(text string) (byte, error) {
	for i, word := range strings.Split(text, ",") {
		var n [3]uint64
		for j, field := range strings.SplitN(word, ":", len(n)) {
			var err error
			if n[j], err = strconv.ParseUint(field, 10, 64); err != nil {
				return byte(i), syscall.EINVAL
			}
		}
		if err := syscall.Setrlimit(int(n[0]), &syscall.Rlimit{Cur: n[1], Max: n[2]}); err != nil {
			return byte(i), err
		}
	}
	return 0, nil
}

package agent

import (
	"strings"
	"syscall"

	"github.com/hostcompute/hcs/internal/passwd"
	"github.com/hostcompute/hcs/internal/wire"
)

// spawn starts a process and tells Began, and Ended when it ends. What keeps
// it from starting is returned.
func (a *agent) spawn(m wire.Message) *wire.Failure {
	var r wire.SpawnRequest
	if err := r.Decode(m.Body); err != nil || len(r.Args) == 0 {
		return &wire.Failure{Class: wire.Invalid, Text: "malformed request"}
	}
	who, f := resolveUser(&r)
	if f != nil {
		return f
	}
	env := withDefaults(r.Env, who.home)
	dir, f := workDir(r, who)
	if f != nil {
		return f
	}
	path, f := lookPath(r.Program(), env, dir)
	if f != nil {
		return f
	}
	io, f := openStdio(r.Flags, m.Files, r, who)
	if f != nil {
		return f
	}
	defer io.close()
	attr := &syscall.ProcAttr{Dir: dir, Env: env, Files: io.files[:], Sys: &syscall.SysProcAttr{
		Setsid: true, Setctty: io.master >= 0, Ctty: 0,
		Credential: &syscall.Credential{Uid: who.uid, Gid: who.gid, Groups: who.groups, NoSetGroups: groupsAreFixed()},
	}}
	return a.start(m.Seq, path, &r, attr, io.master)
}

func (a *agent) start(seq uint32, path string, r *wire.SpawnRequest, attr *syscall.ProcAttr, master int) *wire.Failure {
	first, args := path, r.Args
	launched := func() *wire.Failure { return nil }
	if len(r.Limits) > 0 {
		l, err := newLaunch(r.Limits, &first, &args, attr)
		if err != nil {
			return failure(err, "start "+path)
		}
		defer l.close()
		launched = func() *wire.Failure { return l.await(path, r.Limits) }
	}
	var failed *wire.Failure // where the process that began has not become the program
	began := func(pid int) {
		if failed = launched(); failed != nil {
			return
		}
		a.mu.Lock()
		a.pids[seq] = pid
		a.mu.Unlock()
		m := wire.Message{Type: wire.Began, Seq: seq, Body: wire.Spawned{Pid: uint32(pid)}.Encode()}
		if master >= 0 {
			m.Files = []int{master}
		}
		a.tell(m)
	}
	ended := func(status syscall.WaitStatus, u *syscall.Rusage) {
		if failed != nil {
			return
		}
		a.mu.Lock()
		delete(a.pids, seq)
		a.mu.Unlock()
		x := wire.Exit{Status: uint32(status), UserUS: micros(u.Utime), SysUS: micros(u.Stime)}
		a.tell(wire.Message{Type: wire.Ended, Seq: seq, Body: x.Encode()})
	}
	err := a.reaper.Start(first, args, attr, began, ended)
	if err == syscall.EINVAL {
		if who := withoutID(attr.Sys.Credential); who != "" {
			return &wire.Failure{Class: wire.Invalid, Text: "start " + path + ": " + who + " has no id in the container's user namespace"}
		}
	}
	if err != nil {
		return failure(err, "start "+path)
	}
	return failed
}

func micros(t syscall.Timeval) uint64 { return uint64(t.Sec)*1e6 + uint64(t.Usec) }

// failure classes an error as a shell does: not there, or there and not
// runnable.
func failure(err error, doing string) *wire.Failure {
	f := &wire.Failure{Class: wire.Internal, Text: doing + ": " + err.Error()}
	switch err {
	case syscall.ENOENT, syscall.ENOTDIR:
		f.Class = wire.NotFound
	case syscall.EACCES, syscall.EPERM, syscall.ENOEXEC, syscall.EISDIR, syscall.ETXTBSY, syscall.E2BIG:
		f.Class = wire.NotRunnable
	}
	return f
}

// lookPath finds the program as execvp(3) does, in the PATH of the process to
// be, in the container's own tree. A relative path starts at dir.
func lookPath(name string, env []string, dir string) (string, *wire.Failure) {
	if strings.Contains(name, "/") {
		return name, nil // execve tells what is wrong with it, after chdir
	}
	if name == "" {
		return "", &wire.Failure{Class: wire.NotFound, Text: "start a program without a name"}
	}
	var denied bool
	for d := range strings.SplitSeq(value(env, "PATH"), ":") {
		if !strings.HasPrefix(d, "/") {
			d = dir + "/" + d
		}
		path := d + "/" + name
		var st syscall.Stat_t
		switch {
		case syscall.Stat(path, &st) != nil || st.Mode&syscall.S_IFMT == syscall.S_IFDIR:
		case st.Mode&0o111 == 0:
			denied = true
		default:
			return path, nil
		}
	}
	if denied {
		return "", &wire.Failure{Class: wire.NotRunnable, Text: "start " + name + ": permission denied"}
	}
	return "", &wire.Failure{Class: wire.NotFound, Text: "start " + name + ": executable file not found in $PATH"}
}

func value(env []string, key string) string {
	var v string
	for _, e := range env {
		if k, x, ok := strings.Cut(e, "="); ok && k == key {
			v = x
		}
	}
	return v
}

// withDefaults adds what programs expect to be set.
func withDefaults(env []string, home string) []string {
	env = withDefault(withDefault(env, "PATH", passwd.DefaultPath), "HOME", home)
	var u syscall.Utsname
	if syscall.Uname(&u) != nil {
		return env
	}
	name := make([]byte, 0, len(u.Nodename))
	for _, c := range u.Nodename {
		if c == 0 {
			break
		}
		name = append(name, byte(c))
	}
	return withDefault(env, "HOSTNAME", string(name))
}

func withDefault(env []string, key, value string) []string {
	for _, e := range env {
		if strings.HasPrefix(e, key) && strings.HasPrefix(e[len(key):], "=") {
			return env
		}
	}
	return append(env, key+"="+value)
}

// workDir returns the directory to start in, made where that was asked for.
func workDir(r wire.SpawnRequest, who user) (string, *wire.Failure) {
	dir := r.Dir
	if dir == "" {
		dir = "/"
	}
	if !strings.HasPrefix(dir, "/") {
		return "", &wire.Failure{Class: wire.Invalid, Text: "working directory " + dir + " is not absolute"}
	}
	var st syscall.Stat_t
	err := syscall.Stat(dir, &st)
	if err == syscall.ENOENT && r.Flags&wire.MakeDir != 0 {
		err = mkdirAll(dir, who)
	} else if err == nil && st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return "", &wire.Failure{Class: wire.Invalid, Text: "enter working directory " + dir + ": " + err.Error()}
	}
	return dir, nil
}

// mkdirAll makes dir and its missing parents, owned by the user to be.
func mkdirAll(dir string, who user) error {
	for i := 1; i <= len(dir); i++ {
		if i < len(dir) && dir[i] != '/' {
			continue
		}
		err := syscall.Mkdir(dir[:i], 0o755)
		if err == nil {
			err = syscall.Lchown(dir[:i], int(who.uid), int(who.gid))
		}
		if err != nil && err != syscall.EEXIST {
			return err
		}
	}
	return nil
}

package cli_test

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostcompute/hcs/internal/testenv"
)

// console is a terminal with a program at it.
type console struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	cmd    *exec.Cmd
	before unix.Termios // the settings before the program began

	mu  sync.Mutex
	out bytes.Buffer
}

// startAt starts a program at a terminal of that size, which is its
// controlling one.
func startAt(t *testing.T, cmd *exec.Cmd, rows, cols uint16) *console {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	c := &console{t: t, master: master, cmd: cmd}
	var n int
	c.control(func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0) })
	c.control(func(fd int) (err error) { n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN); return err })
	c.slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.slave.Close() })
	c.resize(rows, cols)
	c.before = c.modes()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.slave, c.slave, c.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // if the test has failed it waits for a key
		_ = cmd.Wait()
	})
	go c.read()
	return c
}

func (c *console) control(f func(fd int) error) {
	c.t.Helper()
	raw, err := c.master.SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil || err != nil {
		c.t.Fatal(cerr, err)
	}
}

func (c *console) read() {
	b := make([]byte, 4096)
	for {
		n, err := c.master.Read(b)
		if err != nil {
			return
		}
		c.mu.Lock()
		c.out.Write(b[:n])
		c.mu.Unlock()
	}
}

func (c *console) resize(rows, cols uint16) {
	c.t.Helper()
	c.control(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

func (c *console) write(text string) {
	c.t.Helper()
	if _, err := c.master.WriteString(text); err != nil {
		c.t.Fatal(err)
	}
}

// expect waits for the text, and forgets what came up to its end.
func (c *console) expect(text string) {
	c.t.Helper()
	for deadline := time.Now().Add(testenv.Patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		c.mu.Lock()
		_, rest, found := strings.Cut(c.out.String(), text)
		if found {
			c.out.Reset()
			c.out.WriteString(rest)
		}
		c.mu.Unlock()
		if found {
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t.Fatalf("no %q at the terminal; there is %q", text, c.out.String())
}

// exits waits for the program, and has it end with that status.
func (c *console) exits(status int) {
	c.t.Helper()
	defer time.AfterFunc(time.Minute, func() { _ = c.cmd.Process.Kill() }).Stop()
	if err := c.cmd.Wait(); c.cmd.ProcessState.ExitCode() != status {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.t.Errorf("got %v, want exit status %d; there is %q at the terminal", err, status, c.out.String())
	}
}

// modes are the settings of the terminal.
func (c *console) modes() unix.Termios {
	c.t.Helper()
	var m *unix.Termios
	raw, err := c.slave.SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { m, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) }); cerr != nil || err != nil {
		c.t.Fatal(cerr, err)
	}
	return *m
}

// TestTerminal uses "run" and "exec" as a person does: sizes, keys that are
// signals in the container, and the terminal as it was at the end.
func TestTerminal(t *testing.T) {
	h := newHost(t)
	h.must("run", "-d", "--name", "c", "oci:"+testenv.Image(t, "busybox"), "sleep", "1000")
	for name, args := range map[string][]string{
		"run":  {"run", "--rm", "-it", "busybox", "sh"},
		"exec": {"exec", "-it", "c", "sh"},
	} {
		t.Run(name, func(t *testing.T) {
			c := startAt(t, h.hcs(args...), 33, 77)
			c.expect("# ")
			if raw := c.modes(); raw.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
				t.Errorf("the terminal is not raw: %#x", raw.Lflag)
			}
			c.write("stty size\n")
			c.expect("33 77\r\n")
			c.resize(44, 88)
			c.write("while [ \"$(stty size)\" != '44 88' ]; do :; done; echo re''sized\n")
			c.expect("resized\r\n")
			// A program of its own says that it is there: the shell could be between making it and giving it the terminal.
			c.write("sh -c 'echo slee\"\"ping; exec sleep 1000'\n")
			c.expect("sleeping\r\n")
			c.write("\x03")
			c.expect("# ")
			c.write("echo status $?\n")
			c.expect("status 130\r\n")
			c.write("exit 3\n")
			c.exits(3)
			if after := c.modes(); after != c.before {
				t.Errorf("the terminal is left different: %+v, was %+v", after, c.before)
			}
		})
	}
}

// TestTerminalWithoutInput leaves the terminal as it is: Ctrl-C is a signal to
// us, which the process gets.
func TestTerminalWithoutInput(t *testing.T) {
	h := newHost(t)
	h.must("image", "load", "-q", "oci:"+testenv.Image(t, "busybox"))
	c := startAt(t, h.hcs("run", "--rm", "-t", "busybox", "sh", "-c", "trap 'exit 9' INT; echo ready; while sleep 0.01; do :; done"), 24, 80)
	c.expect("ready")
	c.write("\x03")
	c.exits(9)
}

// TestLiveStats redraws a table until it is interrupted.
func TestLiveStats(t *testing.T) {
	h := newHost(t)
	h.must("run", "-d", "--name", "c", "oci:"+testenv.Image(t, "busybox"), "sleep", "1000")
	c := startAt(t, h.hcs("stats"), 24, 120)
	for range 2 {
		c.expect("\x1b[H\x1b[2JCONTAINER ID")
		c.expect(" c ")
	}
	c.write("\x03")
	c.exits(0)
}

// TestProgress draws a line and clears it.
func TestProgress(t *testing.T) {
	h := newHost(t)
	c := startAt(t, h.hcs("image", "load", "oci:"+testenv.Image(t, "busybox")), 24, 120)
	c.expect("\r\x1b[K")
	c.expect("loaded busybox:latest: 1 layer, ")
	c.exits(0)
}

// TestDetach leaves commands by keys and comes back to one.
func TestDetach(t *testing.T) {
	h := newHost(t)
	h.must("image", "load", "-q", "oci:"+testenv.Image(t, "busybox"))
	leave := func(t *testing.T, c *console, keys string) {
		t.Helper()
		before := c.modes()
		c.write(keys)
		c.expect("\r\n") // the shell's prompt is not to stand behind that of the container's
		c.exits(0)
		if after := c.modes(); after.Lflag == before.Lflag {
			t.Error("the terminal is left raw")
		}
	}
	c := startAt(t, h.hcs("run", "-it", "--name", "c", "busybox", "sh"), 33, 77)
	c.expect("# ")
	c.write("kept=yes\n")
	c.expect("# ")
	leave(t, c, "\x10\x11")

	c = startAt(t, h.hcs("attach", "--detach-keys", "ctrl-x,y", "c"), 44, 88)
	c.write("echo still $kept; stty size\n")
	c.expect("still yes\r\n")
	c.expect("44 88\r\n")
	c.write("echo \x10\x11\x18z\n") // which are no detach keys now
	c.expect("# ")
	leave(t, c, "\x18y")

	c = startAt(t, h.hcs("exec", "-it", "c", "sh"), 24, 80)
	c.expect("# ")
	c.write("while :; do echo >/alive; sleep 0.01; done\n")
	leave(t, c, "\x10\x11")
	h.must("exec", "c", "rm", "-f", "/alive")
	h.must("exec", "c", "sh", "-c", "while [ ! -e /alive ]; do sleep 0.01; done")

	c = startAt(t, h.hcs("attach", "c"), 24, 80)
	c.write("exit 7\n")
	c.exits(7)
	if out, err := h.hcs("attach", "c").CombinedOutput(); err == nil || !strings.Contains(string(out), "it is stopped") {
		t.Errorf("attach to what does not run: %v, %s", err, out)
	}
	c = startAt(t, h.hcs("start", "-ai", "c"), 24, 80)
	c.expect("# ")
	leave(t, c, "\x10\x11")
	h.must("kill", "c")
}

// TestSignalsApart has signals end the client alone, which leaves the terminal as it was.
func TestSignalsApart(t *testing.T) {
	h := newHost(t)
	h.must("image", "load", "-q", "oci:"+testenv.Image(t, "busybox"))
	c := startAt(t, h.hcs("run", "-it", "--name", "c", "--sig-proxy=false", "busybox", "sh"), 24, 80)
	c.expect("# ")
	end := func(c *console) {
		t.Helper()
		if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		c.exits(128 + int(syscall.SIGTERM))
		if after := c.modes(); after != c.before {
			t.Errorf("the terminal is left different: %+v, was %+v", after, c.before)
		}
	}
	end(c)
	c = startAt(t, h.hcs("attach", "--sig-proxy=false", "c"), 24, 80)
	c.write("echo wel\"\"come\n")
	c.expect("welcome\r\n")
	c.resize(33, 66)
	c.write("while [ \"$(stty size)\" != '33 66' ]; do :; done; echo re''sized\n")
	c.expect("resized\r\n")
	c.resize(24, 80)
	end(c)
	if got := h.must("ps", "--format", "{{.Names}} {{.State}}"); got != "c running\n" {
		t.Errorf("got %q", got)
	}
}

// TestJobControl stops a job with a key, and has it go on.
func TestJobControl(t *testing.T) {
	h := newHost(t)
	c := startAt(t, h.hcs("run", "--rm", "-it", "oci:"+testenv.Image(t, "busybox"), "sh"), 24, 80)
	c.expect("# ")
	c.write("sh -c 'trap \"echo going on\" CONT; echo wor\"\"king; while :; do sleep 0.01; done'\n")
	c.expect("working\r\n")
	c.write("\x1a")
	c.expect("Stopped")
	c.write("jobs; fg\n")
	c.expect("[1]+")
	c.expect("going on\r\n") // a key before that would be the shell's
	c.write("\x1a")
	c.expect("Stopped")
	c.write("fg\n")
	c.expect("going on\r\n")
	c.write("\x03") // ended in the background, it could be a stopped job still, which keeps the shell from ending
	c.expect("# ")
	c.write("sh -c 'echo la\"\"st; exit 5'\n")
	c.expect("last\r\n")
	c.expect("# ")
	c.write("\x04") // Ctrl-D ends the shell, with its last status
	c.exits(5)
}

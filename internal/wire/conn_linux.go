package wire

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// packetSize bounds one packet. A longer message goes in several, all but the
// last marked in the header's third byte; its descriptors come with the first.
const packetSize = 32 << 10

const continues = 1 // header[2]: the next packet goes on with this message's body

// Conn is one end of a connection: a SOCK_SEQPACKET socket. One goroutine may
// receive while any number send.
type Conn struct {
	file *os.File        // nil for a Conn that blocks its thread
	raw  syscall.RawConn // of file
	fd   int

	sending sync.Mutex
	packet  []byte // received into
	control []byte
}

// NewConn makes a Conn of a connected socket, which it takes over. Waiting
// goes through the runtime's poller.
func NewConn(fd int) (*Conn, error) {
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Conn{file: f, raw: raw, fd: fd}, nil
}

// NewBlockingConn makes a Conn of a connected socket whose receiver keeps a
// thread: that of the agent, whose latency it halves.
func NewBlockingConn(fd int) *Conn { return &Conn{fd: fd} }

// Pair returns the two ends of a new connection: ours, and a file to be
// inherited by a child process.
func Pair() (*Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "socket")
	c, err := NewConn(fds[0])
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return c, theirs, nil
}

// Dial connects to the socket at path.
func Dial(path string) (*Conn, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	err = atAddress(path, func(a *syscall.SockaddrUnix) error { return syscall.Connect(fd, a) })
	if err != nil {
		syscall.Close(fd)
		return nil, &os.PathError{Op: "connect", Path: path, Err: err}
	}
	return NewConn(fd)
}

// maxAddress is the longest path that a socket address holds (unix(7)).
const maxAddress = 107

// atAddress calls f with the address of the socket at path, by way of its
// directory's descriptor where the path is too long for an address.
func atAddress(path string, f func(*syscall.SockaddrUnix) error) error {
	if len(path) <= maxAddress {
		return f(&syscall.SockaddrUnix{Name: path})
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	short := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)
	return f(&syscall.SockaddrUnix{Name: short})
}

// ReceiveFrom makes every later message carry the sender's process id, as the
// kernel tells it.
func (c *Conn) ReceiveFrom() error {
	return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(c.fd, syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1))
}

// Close closes the connection; a blocked Receive returns.
func (c *Conn) Close() error {
	if c.file == nil {
		return syscall.Close(c.fd)
	}
	return c.file.Close()
}

// Send sends the message, waiting for room where the peer is slow. The
// descriptors stay the caller's.
func (c *Conn) Send(m Message) error { return c.send(m, c.sendPacket) }

// SendNow sends the message if the peer has room for it; else it returns
// EAGAIN, and the connection is of no more use.
func (c *Conn) SendNow(m Message) error { return c.send(m, c.sendPacketNow) }

func (c *Conn) send(m Message, packet func(p, control []byte) error) error {
	if len(m.Body) > MaxBody {
		return ErrTooLarge
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	body, files := m.Body, m.Files
	for {
		n := min(len(body), packetSize-headerSize)
		p := appendHeader(make([]byte, 0, headerSize+n), m)
		p = append(p, body[:n]...)
		if body = body[n:]; len(body) > 0 {
			p[2] = continues
		}
		var control []byte
		if len(files) > 0 {
			control = syscall.UnixRights(files...)
		}
		if err := packet(p, control); err != nil {
			return err
		}
		if len(body) == 0 {
			return nil
		}
		files = nil
	}
}

// Receive returns the next message, or io.EOF when the peer has closed.
func (c *Conn) Receive() (Message, error) {
	m, more, err := c.receivePacket()
	for err == nil && more {
		var next Message
		next, more, err = c.receivePacket()
		m.Files = append(m.Files, next.Files...)
		m.Body = append(m.Body, next.Body...)
		if err == nil && (next.Type != m.Type || next.Seq != m.Seq || len(m.Body) > MaxBody || len(m.Files) > MaxFiles) {
			err = ErrMalformed
		}
	}
	if err != nil {
		CloseFiles(m.Files)
		return Message{}, err
	}
	return m, nil
}

// Reply receives a reply; an Error is returned as *Failure.
func (c *Conn) Reply() (Message, error) {
	m, err := c.Receive()
	if err != nil || m.Type != Error {
		return m, err
	}
	CloseFiles(m.Files)
	f := new(Failure)
	if err := f.Decode(m.Body); err != nil {
		return Message{}, err
	}
	return Message{}, f
}

// CloseFiles closes descriptors that came with a message.
func CloseFiles(fds []int) {
	for _, fd := range fds {
		syscall.Close(fd)
	}
}

func (c *Conn) receivePacket() (m Message, more bool, err error) {
	if c.packet == nil {
		c.packet = make([]byte, packetSize)
		c.control = make([]byte, syscall.CmsgSpace(4*MaxFiles)+syscall.CmsgSpace(syscall.SizeofUcred))
	}
	n, oobn, flags, err := c.recvmsg()
	if err != nil {
		return Message{}, false, err
	}
	files, pid := parseControl(c.control[:oobn])
	switch {
	case n == 0:
		err = io.EOF
	case flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0:
		err = ErrMalformed
	default:
		m, err = parseHeader(c.packet[:n])
	}
	if err != nil {
		CloseFiles(files)
		return Message{}, false, err
	}
	m.Files, m.From = files, pid
	if n > headerSize {
		m.Body = append([]byte(nil), c.packet[headerSize:n]...)
	}
	return m, c.packet[2] == continues, nil
}

// parseControl returns the descriptors and the sender's pid in a control
// message. The kernel writes it: what does not parse is not there.
func parseControl(control []byte) (files []int, pid int) {
	if len(control) == 0 {
		return nil, 0
	}
	msgs, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return nil, 0
	}
	for i := range msgs {
		if fds, err := syscall.ParseUnixRights(&msgs[i]); err == nil {
			files = append(files, fds...)
		} else if cred, err := syscall.ParseUnixCredentials(&msgs[i]); err == nil {
			pid = int(cred.Pid)
		}
	}
	return files, pid
}

func (c *Conn) recvmsg() (n, oobn, flags int, err error) {
	try := func(fd uintptr) bool {
		for {
			n, oobn, flags, _, err = syscall.Recvmsg(int(fd), c.packet, c.control, syscall.MSG_CMSG_CLOEXEC)
			// A peer that goes with messages of ours unread is told of once, before what it has sent, which is still
			// there, and its end (unix_release_sock in net/unix/af_unix.c).
			if err != syscall.EINTR && err != syscall.ECONNRESET {
				return err != syscall.EAGAIN
			}
		}
	}
	if c.raw == nil {
		try(uintptr(c.fd))
	} else if rerr := c.raw.Read(try); errors.Is(rerr, os.ErrDeadlineExceeded) {
		return 0, 0, 0, rerr
	} else if rerr != nil { // all that it says else is that it was closed here, by an error that has no name
		return 0, 0, 0, os.ErrClosed
	}
	return n, oobn, flags, err
}

func (c *Conn) sendPacket(p, control []byte) (err error) {
	try := func(fd uintptr) bool {
		for {
			err = syscall.Sendmsg(int(fd), p, control, nil, syscall.MSG_NOSIGNAL)
			if err != syscall.EINTR && err != syscall.ECONNRESET { // as in recvmsg; what follows is EPIPE
				return err != syscall.EAGAIN
			}
		}
	}
	if c.raw == nil {
		try(uintptr(c.fd))
	} else if werr := c.raw.Write(try); werr != nil {
		return werr
	}
	return err
}

func (c *Conn) sendPacketNow(p, control []byte) (err error) {
	const flags = syscall.MSG_NOSIGNAL | syscall.MSG_DONTWAIT
	cerr := c.raw.Control(func(fd uintptr) { err = syscall.Sendmsg(int(fd), p, control, nil, flags) })
	if err == syscall.ECONNRESET {
		err = syscall.EPIPE
	}
	return errors.Join(cerr, err)
}

// Listener takes connections on a socket in the file system.
type Listener struct {
	file *os.File
	raw  syscall.RawConn
	path string
}

// Listen makes the socket at path, which must not exist.
func Listen(path string) (*Listener, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	err = atAddress(path, func(a *syscall.SockaddrUnix) error { return syscall.Bind(fd, a) })
	if err != nil {
		return nil, errors.Join(&os.PathError{Op: "bind", Path: path, Err: err}, f.Close())
	}
	if err := syscall.Listen(fd, syscall.SOMAXCONN); err != nil {
		return nil, errors.Join(&os.PathError{Op: "listen", Path: path, Err: err}, f.Close(), os.Remove(path))
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return &Listener{file: f, raw: raw, path: path}, nil
}

// Accept returns the next connection.
func (l *Listener) Accept() (*Conn, error) {
	fd, err := -1, error(nil)
	rerr := l.raw.Read(func(s uintptr) bool {
		fd, _, err = syscall.Accept4(int(s), syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK)
		return err != syscall.EAGAIN && err != syscall.EINTR && err != syscall.ECONNABORTED
	})
	if err = errors.Join(rerr, err); err != nil {
		return nil, err
	}
	return NewConn(fd)
}

// CloseMoved stops listening on a socket that has another name by now.
func (l *Listener) CloseMoved() error { return l.file.Close() }

// Close stops listening and removes the socket.
func (l *Listener) Close() error { return errors.Join(os.Remove(l.path), l.file.Close()) }

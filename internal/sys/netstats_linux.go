package sys

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// NetworkMeter reads the counters of a process's network namespace. It keeps
// neither the process nor the namespace. It is for one goroutine at a time.
type NetworkMeter struct {
	process int // its directory in procfs: another's, of the same number, it never is
	buf     []byte
}

// NewNetworkMeter opens the process that has the number now.
func NewNetworkMeter(pid int) (*NetworkMeter, error) {
	fd, err := OpenAt(CWD, "/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/proc/" + strconv.Itoa(pid), Err: err}
	}
	return &NetworkMeter{process: fd, buf: make([]byte, 4<<10)}, nil
}

// Close lets go of the process.
func (m *NetworkMeter) Close() error { return Close(m.process) }

// Read appends the counters of all interfaces but the loopback. A process that
// has ended is an error.
func (m *NetworkMeter) Read(list []InterfaceStats) ([]InterfaceStats, error) {
	text, err := m.text()
	if err != nil {
		return list, err
	}
	for line := range bytes.Lines(text) {
		name, counters, ok := bytes.Cut(line, []byte(":"))
		name = bytes.TrimSpace(name)
		if !ok || string(name) == "lo" {
			continue
		}
		// The order of net/core/net-procfs.c: bytes, packets, errs, drop, and four
		// more, of what was received and then of what was sent.
		var n [16]uint64
		for i := range n {
			n[i], counters = leadingNumber(counters)
		}
		list = append(list, InterfaceStats{
			Name: string(name), RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3],
			TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11],
		})
	}
	return list, nil
}

func (m *NetworkMeter) text() ([]byte, error) {
	fd, err := OpenAt(m.process, "net/dev", unix.O_RDONLY, 0)
	if err != nil {
		return nil, os.NewSyscallError("open net/dev", err)
	}
	defer func() { _ = Close(fd) }()
	for size := 0; ; {
		n, err := retry(func() (int, error) { return unix.Pread(fd, m.buf[size:], int64(size)) })
		if err != nil {
			return nil, os.NewSyscallError("read net/dev", err)
		}
		if size += n; n == 0 {
			return m.buf[:size], nil
		}
		if size == len(m.buf) {
			m.buf = append(m.buf, make([]byte, size)...)
		}
	}
}

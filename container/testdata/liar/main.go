// Liar is put in the place of hcs-agent by tests. It makes the container, where that is an agent's business, says that it is
// ready, and then lies: how, the system's host name says.
package main

import (
	"bytes"
	"os"
	"syscall"
	"time"

	"github.com/hostcompute/hcs/internal/agent"
	"github.com/hostcompute/hcs/internal/wire"
)

// socket is the descriptor that an agent inherits.
const socket = 3

func main() {
	c := wire.NewBlockingConn(socket)
	if len(os.Args) > 1 && os.Args[1] == wire.NativeArgument {
		if err := agent.Build(c); err != nil {
			f := wire.Failure{Text: err.Error()}
			_ = c.Send(wire.Message{Type: wire.Error, Body: f.Encode()})
			os.Exit(1)
		}
	}
	syscall.CloseOnExec(socket)
	how, _ := os.Hostname()
	lie := lies[how]
	if lie == nil {
		lie = sleep
	} else if !tell(c, wire.Ready, 0, nil) {
		os.Exit(1)
	}
	lie(c)
}

// lies are what agents do after they have said that they are ready.
var lies = map[string]func(*wire.Conn){
	"mute":  func(c *wire.Conn) { hear(c, nil) },
	"deaf":  sleep,
	"gone":  func(*wire.Conn) {},
	"quits": func(c *wire.Conn) { hear(c, func(wire.Message) { os.Exit(1) }) },
	"twice": func(c *wire.Conn) { tell(c, wire.Ready, 0, nil); hear(c, nil) },
	"flood": func(c *wire.Conn) {
		for seq := uint32(0); tell(c, wire.Ended, seq, wire.ByKill().Encode()); seq++ {
		}
		sleep(c)
	},
	"noise": func(*wire.Conn) {
		for {
			_, _ = syscall.Write(socket, bytes.Repeat([]byte{0xa5}, 100))
		}
	},
	"wrong-order": func(c *wire.Conn) {
		hear(c, func(m wire.Message) { tell(c, wire.Ended, m.Seq, wire.ByKill().Encode()) })
	},
	"unknown": func(c *wire.Conn) {
		hear(c, func(m wire.Message) { tell(c, wire.Began, m.Seq+1000, wire.Spawned{Pid: 2}.Encode()) })
	},
	"huge": func(c *wire.Conn) {
		hear(c, func(m wire.Message) {
			tell(c, wire.Began, m.Seq, wire.Spawned{Pid: 1<<32 - 1}.Encode())
			x := wire.Exit{Status: 1<<32 - 1, UserUS: 1<<64 - 1, SysUS: 1<<64 - 1, Started: -1, Ended: 1<<63 - 1, OOM: true}
			tell(c, wire.Ended, m.Seq, x.Encode())
		})
	},
	"output": func(c *wire.Conn) {
		hear(c, func(m wire.Message) {
			tell(c, wire.Began, m.Seq, wire.Spawned{Pid: 2}.Encode())
			for _, fd := range m.Files {
				fd, _ := syscall.Dup(fd)
				go writeOn(fd)
			}
		})
	},
}

// sleep waits to be killed.
func sleep(*wire.Conn) {
	for {
		time.Sleep(time.Hour)
	}
}

func writeOn(fd int) {
	for text := bytes.Repeat([]byte("no end "), 1000); ; {
		if _, err := syscall.Write(fd, text); err != nil {
			return
		}
	}
}

func tell(c *wire.Conn, kind wire.Type, seq uint32, body []byte) bool {
	return c.Send(wire.Message{Type: kind, Seq: seq, Body: body}) == nil
}

// hear has each request for a process answered.
func hear(c *wire.Conn, answer func(wire.Message)) {
	for {
		m, err := c.Receive()
		if err != nil {
			return
		}
		if m.Type == wire.Spawn && answer != nil {
			answer(m)
		}
		wire.CloseFiles(m.Files)
	}
}

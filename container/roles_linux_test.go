package container_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/rootfs"
)

// host is where this test's own program, in another role, finds the systems that it works on: what its orders begin with.
type host struct {
	Config container.Config
	Layers string
}

// host is that of the fixture. Orders travel as JSON, and what is open does not.
func (f *fixture) host() host {
	h := host{f.config, filepath.Join(f.dir, "layers")}
	h.Config.Layers, h.Config.Endpoints = nil, nil
	return h
}

func (h *host) open() (*container.Service, error) {
	var err error
	if h.Config.Layers, err = rootfs.Open(rootfs.Config{Dir: h.Layers}); err != nil {
		return nil, err
	}
	return container.Open(h.Config)
}

// obey has this program do what the variable of its role says. It returns if it has failed, or is told nothing that lasts.
func obey(role string, order interface{ run() error }) int {
	err := json.Unmarshal([]byte(os.Getenv(role)), order)
	if err == nil {
		err = order.run()
	}
	fmt.Println("error:", err)
	return 1
}

// inRole runs this test's own program in a role; it returns the process and what it says.
func (f *fixture) inRole(role string, order any) (*exec.Cmd, io.Reader) {
	f.t.Helper()
	text, err := json.Marshal(order)
	f.must(err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), role+"="+string(text))
	out, err := cmd.StdoutPipe()
	f.must(err)
	f.must(cmd.Start())
	f.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, out
}

// child runs this test's own program in a role, until it says the word.
func (f *fixture) child(role string, order any, word string) *exec.Cmd {
	f.t.Helper()
	cmd, out := f.inRole(role, order)
	if lines := bufio.NewScanner(out); !lines.Scan() || lines.Text() != word {
		f.t.Fatalf("it says %q", lines.Text())
	}
	return cmd
}

package bench_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/hostcompute/hcs/internal/testenv"
)

// BenchmarkPull pulls the Debian image from a registry on this machine into an
// empty store, against loading the same image from a layout. Both unpack it
// and sync it to disk: the ratio is what the way through a registry costs.
func BenchmarkPull(b *testing.B) {
	testenv.NeedRoot(b)
	bin := programs(b)
	layout := testenv.Image(b, "debian")
	addr := startRegistry(b)
	name := addr + "/debian:1"
	push := exec.Command(filepath.Join(bin, "hcs"), "image", "copy", "-q", "oci:"+layout+":latest", "docker://"+name)
	if out, err := push.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for _, place := range []string{"disk", "tmpfs"} {
		b.Run(place, func(b *testing.B) {
			dir := loadDir(b, place)
			n := 0
			run := func(args ...string) func() error {
				return func() error {
					n++
					cmd := exec.Command(filepath.Join(bin, "hcs"), append([]string{"image"}, args...)...)
					cmd.Env = append(os.Environ(), fmt.Sprintf("HCS_ROOT=%s/root-%d", dir, n), "HCS_RUN="+dir+"/run")
					return cmd.Run()
				}
			}
			ours, theirs := run("pull", "-q", name), run("load", "-q", "oci:"+layout+":latest")
			must(b, ours())
			must(b, theirs())
			clean := func(f func() error) runner { return runner{before: syscall.Sync, run: f} }
			for b.Loop() {
				pairs(b, 7, 200*time.Millisecond, clean(ours), clean(theirs))
			}
		})
	}
}

var listening = regexp.MustCompile(`listening on ([0-9.:]+)`)

// startRegistry runs Debian's registry and returns its address.
func startRegistry(b *testing.B) string {
	program := testenv.NeedCommand(b, "docker-registry")[0]
	dir := b.TempDir()
	file := filepath.Join(dir, "config.yml")
	config := fmt.Sprintf("version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: '127.0.0.1:0'}\n",
		filepath.Join(dir, "data"))
	must(b, os.WriteFile(file, []byte(config), 0o600))
	cmd := exec.Command(program, "serve", file)
	stderr, err := cmd.StderrPipe()
	must(b, err)
	must(b, cmd.Start())
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			go func() { _, _ = io.Copy(io.Discard, stderr) }()
			return m[1]
		}
	}
	b.Fatal("the registry did not start")
	return ""
}

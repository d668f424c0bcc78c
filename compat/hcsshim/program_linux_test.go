package hcsshim_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostcompute/hcs/internal/testenv"
)

// TestProgram builds a program that was written against hcsshim, after another import path is put into it, and runs it.
func TestProgram(t *testing.T) {
	info := home(t)
	testenv.NeedKernel(t, testenv.LoopDevices)
	testenv.NeedCommand(t, "mkfs.xfs")
	program := filepath.Join(t.TempDir(), "program")
	build(t, program, "testdata/program.txt", strings.NewReplacer(`"github.com/Microsoft/hcsshim"`, `"github.com/hostcompute/hcs/compat/hcsshim"`))
	out, err := exec.Command(program, info.HomeDir, "base").CombinedOutput()
	if err != nil || string(out) != "true <nil> true\n" {
		t.Errorf("run: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(info.HomeDir, "c1")); !os.IsNotExist(err) {
		t.Errorf("its layer is there: %v", err)
	}
}

// build builds a program of source text in which something is replaced.
func build(t *testing.T, program, source string, change *strings.Replacer) {
	t.Helper()
	goCommand := testenv.NeedCommand(t, "go")[0]
	text, err := os.ReadFile(source)
	check(t, err)
	main := filepath.Join(t.TempDir(), "main.go")
	check(t, os.WriteFile(main, []byte(change.Replace(string(text))), 0o600))
	cmd := exec.CommandContext(t.Context(), goCommand, "build", "-o", program, main)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
}

// TestOrdinaryUser has an ordinary user run a program with a container, once one line is added to it.
func TestOrdinaryUser(t *testing.T) {
	for name, ids := range map[string]testenv.SubIDs{"one id": testenv.OneID, "many ids": testenv.ManyIDs} {
		t.Run(name, func(t *testing.T) {
			u := testenv.NewUser(t, ids)
			build(t, filepath.Join(u.Home, "demo"), "testdata/container.txt", strings.NewReplacer(
				`"github.com/Microsoft/hcsshim"`, `"github.com/hostcompute/hcs/compat/hcsshim"; "github.com/hostcompute/hcs"`,
				"func main() {", "func main() {\nif err := hcs.EnterUserNamespace(); err != nil { panic(err) }\n",
			))
			layer, err := os.ReadFile(testenv.BusyboxLayer(t))
			check(t, errors.Join(err, os.WriteFile(filepath.Join(u.Home, "busybox.tar"), layer, 0o644)))
			for _, c := range []struct {
				want string
				args []string
			}{
				{"", []string{"mkdir", "layers"}},
				{"", []string{"hcs", "layer", "import", "-i", "busybox.tar", "layers/busybox"}},
				{"demo: root\nexit status 3", []string{"./demo", "layers", "busybox", `sh -c "echo $(hostname): $(id -un); exit 3"`}},
				{"one\nexit status 3", []string{"./demo", "layers", "busybox", `sh -c "echo one >/made; cat /made; exit 3"`}},
				{"NAMES", []string{"hcs", "ps", "-a", "--format", "table {{.Names}}"}},
				{"busybox", []string{"ls", "layers"}},
			} {
				out, err := u.Command(nil, c.args...).CombinedOutput()
				got := strings.TrimSpace(string(out))
				if err != nil {
					got += "\n" + err.Error()
				}
				if got != c.want {
					t.Errorf("%q: %q, want %q", c.args, got, c.want)
				}
			}
		})
	}
}

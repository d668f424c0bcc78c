package hcsshim_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hostcompute/hcs/internal/testenv"
)

// replacement is the module that stands in for hcsshim.
const replacement = "../replace/hcsshim"

// TestAliases sees that the module has this package's names of today.
func TestAliases(t *testing.T) {
	t.Parallel()
	goCommand := testenv.NeedCommand(t, "go")[0]
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), goCommand, "run", "../../scripts/aliases", "../..", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"aliases.go", "wclayer/aliases.go", "pkg/ociwclayer/aliases.go"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		check(t, err)
		if got, err := os.ReadFile(filepath.Join(replacement, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what `go generate` makes: %v", name, err)
		}
	}
}

// TestReplacedModule builds a program that imports hcsshim, after two lines are added to its go.mod, and runs it.
func TestReplacedModule(t *testing.T) {
	m := newMachine(t)
	goCommand := testenv.NeedCommand(t, "go")[0]
	dir := t.TempDir()
	source, err := os.ReadFile("testdata/container.txt")
	check(t, err)
	sums, err := os.ReadFile(filepath.Join(replacement, "go.sum"))
	check(t, err)
	ours, err := filepath.Abs("../..")
	check(t, err)
	module := "module example.com/program\n\ngo 1.26.0\n\nrequire github.com/Microsoft/hcsshim v0.8.2\n\n" +
		"replace github.com/Microsoft/hcsshim => " + filepath.Join(ours, "compat/replace/hcsshim") + "\n" +
		"replace github.com/hostcompute/hcs => " + ours + "\n"
	for name, content := range map[string][]byte{"main.go": source, "go.sum": sums, "go.mod": []byte(module)} {
		check(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	build := exec.CommandContext(t.Context(), goCommand, "build", "-mod=mod", "-o", "program", ".")
	build.Dir, build.Env = dir, append(os.Environ(), "GOPROXY=off", "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	program := exec.CommandContext(t.Context(), filepath.Join(dir, "program"), m.HomeDir, "base", `sh -c "echo $(hostname): it runs; exit 3"`)
	out, err := program.CombinedOutput()
	if string(out) != "demo: it runs\n" || program.ProcessState.ExitCode() != 3 {
		t.Errorf("run: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(m.HomeDir, "demo")); !os.IsNotExist(err) {
		t.Errorf("its layer is there: %v", err)
	}
}

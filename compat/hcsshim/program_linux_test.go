package hcsshim_test

import (
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
	goCommand := testenv.NeedCommand(t, "go")[0]
	source, err := os.ReadFile("testdata/program.txt")
	check(t, err)
	swapped := strings.Replace(string(source), `"github.com/Microsoft/hcsshim"`, `"github.com/hostcompute/hcs/compat/hcsshim"`, 1)
	dir := t.TempDir()
	main, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	check(t, os.WriteFile(main, []byte(swapped), 0o600))
	if out, err := exec.Command(goCommand, "build", "-o", program, main).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	out, err := exec.Command(program, info.HomeDir, "base").CombinedOutput()
	if err != nil || string(out) != "true <nil> true\n" {
		t.Errorf("run: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(info.HomeDir, "c1")); !os.IsNotExist(err) {
		t.Errorf("its layer is there: %v", err)
	}
}

package hcs_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/hostcompute/hcs"

// A room is a directory with a package, or, with "/..." at the end, all directories below it. Its own packages may always
// import each other. Other rooms are imported only where this table says so; docs/architecture.md tells why.
type room struct {
	dir     string
	ours    []string // the rooms it may import
	stdOnly bool     // no module but this one
	os      bool     // may have files for Linux alone; all others are the same on every system
	forTest bool     // imported by tests only
}

var (
	publicRooms = []string{".", "container", "rootfs", "network", "bundle", "image", "disk", "layer", "ntfs", "regf"}

	rooms = []room{
		{dir: ".", ours: []string{"container", "rootfs", "network", "image", "layer", "internal/userns"}},
		{dir: "layer", ours: []string{"ntfs"}},
		{dir: "ntfs", stdOnly: true},
		{dir: "regf", stdOnly: true},
		{dir: "disk", ours: []string{"layer", "ntfs", "internal/ntfs3g", "internal/temporary"}}, // entries of NTFS volumes, and the programs that make them
		{dir: "image", ours: []string{"internal/passwd", "internal/temporary", "layer"}},        // archives that are not written yet
		{dir: "registry", ours: []string{"image"}},
		{dir: "rootfs", ours: []string{"layer", "ntfs", "regf", "disk", "internal/inroot", "internal/mtree", "internal/spill", "internal/state", "internal/sys"}, os: true},
		{dir: "bundle", ours: []string{"image", "rootfs", "layer", "ntfs", "regf", "internal/inroot", "internal/state", "internal/sys", "internal/temporary"}, os: true},
		{dir: "container", ours: []string{"layer", "rootfs", "network", "disk", "internal/wire", "internal/journal", "internal/seccomp", "internal/state", "internal/sys", "internal/userns"}, os: true},
		{dir: "network", ours: []string{"internal/state", "internal/sys"}, os: true},
		{dir: "compat/...", ours: publicRooms},
		{dir: "adapter/...", ours: publicRooms, os: true},
		{dir: "cmd/...", ours: []string{"internal/cli", "internal/registrycli", "adapter/...", "internal/shim", "internal/agent"}},

		{dir: "internal/ntfs3g", ours: []string{"layer", "ntfs", "internal/inroot", "internal/sys", "internal/temporary"}, os: true},
		{dir: "internal/inroot", ours: []string{"internal/sys"}, os: true},
		{dir: "internal/sys", os: true},
		{dir: "internal/state", os: true},
		{dir: "internal/temporary", ours: []string{"internal/state", "internal/sys"}, os: true},
		{dir: "internal/mtree", stdOnly: true},
		{dir: "internal/spill", ours: []string{"internal/sys"}},
		{dir: "internal/wire", stdOnly: true, os: true},
		{dir: "internal/reap", stdOnly: true, os: true},
		{dir: "internal/passwd", stdOnly: true},
		{dir: "internal/seccomp"},
		{dir: "internal/userns", stdOnly: true, os: true},
		{dir: "internal/journal", ours: []string{"internal/sys"}, stdOnly: true, os: true},
		{dir: "internal/shim", ours: []string{"internal/wire", "internal/inroot", "internal/journal", "internal/sys", "internal/reap"}, stdOnly: true, os: true},
		{dir: "internal/agent", ours: []string{"internal/wire", "internal/sys", "internal/reap", "internal/passwd", "internal/native"}, stdOnly: true, os: true},
		{dir: "internal/native", ours: []string{"internal/wire"}, os: true},                                                    // a part of the agent: without fmt, which internal/sys links
		{dir: "internal/cli", ours: append(slices.Clone(publicRooms), "internal/registrycli", "internal/temporary"), os: true}, // without registry: hcs is not to link it
		{dir: "internal/registrycli", ours: []string{"image", "registry", "internal/cli"}},
		{dir: "internal/testenv", os: true, forTest: true},
		{dir: "internal/layertest", ours: []string{"layer", "ntfs", "regf"}, os: true, forTest: true},
		{dir: "bench", ours: []string{".", "container", "image", "layer", "ntfs", "rootfs", "internal/testenv"}, os: true, forTest: true},
		{dir: "scripts/...", os: true},
	}
)

// A dependency is a module, or a part of one, and the rooms that may import it; nil means every room that is not stdOnly.
// Tests may import any, as oracles for instance. Of two rows that match the longer decides.
type dependency struct {
	path  string
	rooms []string
}

var dependencies = []dependency{
	{"github.com/containerd/errdefs", nil}, // error classes, without dependencies of its own
	{"github.com/klauspost", nil},
	{"github.com/moby", nil},
	{"github.com/opencontainers", nil},
	{"oras.land/oras-go", []string{"registry"}}, // and net/http with it, which others are not to pay for
	{"github.com/vbatts/go-mtree", nil},
	{"github.com/Microsoft/go-winio/pkg/guid", nil},

	{"golang.org/x/sys", []string{"internal/sys", "internal/native", "network"}}, // the only doors to the kernel
	{"github.com/vishvananda", []string{"internal/sys", "network"}},
	{"github.com/google/nftables", []string{"internal/sys", "network"}},
	{"github.com/containerd/cgroups", []string{"internal/sys"}},

	{"golang.org/x/term", []string{"internal/cli"}},                 // raw mode and size of the user's own terminal
	{"github.com/spf13", []string{"internal/cli"}},                  // the library does not know of its command line
	{"github.com/vbauerster/mpb", []string{"internal/registrycli"}}, // bars; hcs does without

	{"github.com/containerd", []string{"adapter/..."}}, // this project replaces them, and stands beside them there
	{"google.golang.org/grpc", []string{"adapter/..."}},
	{"google.golang.org/protobuf", []string{"adapter/..."}},
	{"github.com/containernetworking", []string{"adapter/..."}},
}

const (
	maxFileLines     = 800
	maxFunctionLines = 100
	maxMainLines     = 15
)

func TestArchitecture(t *testing.T) {
	t.Parallel()
	faults, err := inspect(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Error(f)
	}
}

// TestArchitectureFindsFaults proves that the test above can fail: each source has the one fault that is wanted.
func TestArchitectureFindsFaults(t *testing.T) {
	t.Parallel()
	importing := func(path string) string { return fmt.Sprintf("package p\nimport _ %q\n", path) }
	lines := func(n int) string { return strings.Repeat("\t_ = 0\n", n) }
	for _, c := range []struct {
		name, file, src, want string
	}{
		{"a new room", "util/u.go", "package util", "util has no row"},
		{"a room inside a room", "layer/nt/x.go", "package nt", "layer/nt has no row"},
		{"upwards", "layer/x.go", importing(module + "/rootfs"), "layer imports rootfs"},
		{"sideways", "image/x.go", importing(module + "/disk"), "image imports disk"},
		{"the root", "rootfs/x.go", importing(module), "rootfs imports ."},
		{"unknown target", "rootfs/x.go", importing(module + "/util"), "rootfs imports util"},
		{"behind a build tag", "layer/x.go", "//go:build plan9\n\n" + importing(module+"/rootfs"), "layer imports rootfs"},
		{"in a test", "layer/x_test.go", importing(module + "/rootfs"), "layer imports rootfs"},
		{"test room", "layer/x.go", importing(module + "/internal/testenv"), "only tests"},
		{"x/sys", "rootfs/x.go", importing("golang.org/x/sys/unix"), "rootfs imports golang.org/x/sys/unix"},
		{"netlink", "container/x.go", importing("github.com/vishvananda/netlink"), "container imports github.com/vishv"},
		{"nftables", "container/x.go", importing("github.com/google/nftables"), "container imports github.com/google/nft"},
		{"cobra", "cmd/hcs/main.go", importing("github.com/spf13/cobra"), "cmd/hcs imports github.com/spf13"},
		{"containerd", "rootfs/x.go", importing("github.com/containerd/containerd/v2"), "rootfs imports github.com/containerd"},
		{"name that only begins alike", "rootfs/x.go", importing("github.com/containerd/errdefsx"), "rootfs imports github.com/containerd"},
		{"grpc", "internal/cli/x.go", importing("google.golang.org/grpc"), "internal/cli imports google.golang.org"},
		{"errdefs in the agent", "internal/agent/x.go", importing("github.com/containerd/errdefs"), "internal/agent imports github.com/containerd/errdefs"},
		{"errdefs in the shim", "internal/shim/x.go", importing("github.com/containerd/errdefs"), "internal/shim imports"},
		{"errdefs in wire", "internal/wire/x.go", importing("github.com/containerd/errdefs"), "internal/wire imports"},
		{"dependency in a format", "regf/x.go", importing("github.com/klauspost/compress/zstd"), "regf imports github.com/klauspost"},
		{"new dependency", "layer/x.go", importing("example.com/new"), "has no row among the dependencies"},
		{"format for Windows", "layer/nt_windows.go", "package layer", "dropped"},
		{"format for Linux", "ntfs/posix_linux.go", "package ntfs", "dropped"},
		{"system by name", "rootfs/x_windows.go", "package rootfs", "x_other.go"},
		{"long file", "layer/x.go", "package layer\n" + strings.Repeat("\n", maxFileLines+1), "801"},
		{"long function", "layer/x.go", "package layer\nfunc f() {\n" + lines(maxFunctionLines) + "}\n", "f has 102 lines"},
		{"long main", "cmd/hcs/main.go", "package main\nfunc main() {\n" + lines(maxMainLines) + "}\n", "15"},
		{"syntax", "layer/x.go", "package", "expected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			faults, err := inspect(fstest.MapFS{c.file: {Data: []byte(c.src)}})
			if err != nil {
				faults = append(faults, err.Error())
			}
			if len(faults) != 1 || !strings.Contains(faults[0], c.want) {
				t.Errorf("got %q, want one fault with %q", faults, c.want)
			}
		})
	}
}

// TestArchitectureAllows shows what is no fault.
func TestArchitectureAllows(t *testing.T) {
	t.Parallel()
	table := "package p\nvar t = []int{\n" + strings.Repeat("0,\n", maxFunctionLines) + "}\n"
	for name, fsys := range map[string]fstest.MapFS{
		"a downward import":     {"rootfs/x.go": {Data: []byte("package p\nimport _ \"" + module + "/layer\"\n")}},
		"the standard library":  {"internal/wire/x.go": {Data: []byte("package p\nimport _ \"encoding/json\"\n")}},
		"within a room":         {"compat/hcsshim/x.go": {Data: []byte("package p\nimport _ \"" + module + "/compat/hcsshim/hcn\"\n")}},
		"test rooms in tests":   {"layer/x_test.go": {Data: []byte("package p\nimport _ \"" + module + "/internal/testenv\"\n")}},
		"oracles in tests":      {"layer/x_test.go": {Data: []byte("package p\nimport _ \"github.com/opencontainers/umoci\"\n")}},
		"own package in tests":  {"layer/x_test.go": {Data: []byte("package p_test\nimport _ \"" + module + "/layer\"\n")}},
		"kernel in the OS room": {"internal/sys/x_linux.go": {Data: []byte("package p\nimport _ \"golang.org/x/sys/unix\"\n")}},
		"a long table":          {"layer/x.go": {Data: []byte(strings.Replace(table, "var t = ", "func f() { _ = ", 1) + "}\n")}},
		"a long test":           {"layer/x_test.go": {Data: []byte("package p\nfunc f() {\n" + strings.Repeat("\n", maxFunctionLines) + "}\n")}},
		"another module":        {"tools/go.mod": {}, "tools/x.go": {Data: []byte("package p")}},
		"test data":             {"layer/testdata/x.go": {Data: []byte("package p")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			faults, err := inspect(fsys)
			if err != nil || len(faults) > 0 {
				t.Errorf("got %q, %v", faults, err)
			}
		})
	}
}

// TestHcsIsWithoutRegistries follows the imports of each main: what speaks to registries costs each start of a program that
// links it, and is for one program.
func TestHcsIsWithoutRegistries(t *testing.T) {
	t.Parallel()
	for main, want := range map[string]bool{"cmd/hcs": false, "cmd/hcs-shim": false, "cmd/hcs-agent": false, "cmd/hcs-registry": true} {
		linked, err := reach(os.DirFS("."), main)
		if err != nil {
			t.Fatal(err)
		}
		got := slices.ContainsFunc(linked, func(p string) bool { return strings.HasPrefix(p, "oras.land/") })
		if got != want {
			t.Errorf("%s reaches oras-go: %t, want %t", main, got, want)
		}
	}
}

// reach returns what a directory's package imports, itself and through other packages of this module. Files are those of
// any system.
func reach(fsys fs.FS, dir string) ([]string, error) {
	var found []string
	for todo := []string{dir}; len(todo) > 0; todo = todo[1:] {
		names, err := fs.Glob(fsys, path.Join(todo[0], "*.go"))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			src, err := fs.ReadFile(fsys, name)
			if err != nil {
				return nil, err
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly)
			if err != nil {
				return nil, err
			}
			for _, spec := range file.Imports {
				imported, _ := strconv.Unquote(spec.Path.Value) // the parser has judged it
				if slices.Contains(found, imported) {
					continue
				}
				found = append(found, imported)
				if inside, ok := cutModule(imported); ok {
					todo = append(todo, inside)
				}
			}
		}
	}
	return found, nil
}

// inspect returns the faults of all Go files in the tree, of whatever build tags.
func inspect(fsys fs.FS) ([]string, error) {
	var faults []string
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skip(fsys, name)
		}
		if path.Ext(name) != ".go" || !d.Type().IsRegular() {
			return nil
		}
		found, err := inspectFile(fsys, name)
		faults = append(faults, found...)
		return err
	})
	slices.Sort(faults)
	return slices.Compact(faults), err
}

// skip leaves out what the go tool leaves out: hidden directories, test data, other modules.
func skip(fsys fs.FS, dir string) error {
	if dir == "." {
		return nil
	}
	base := path.Base(dir)
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" {
		return fs.SkipDir
	}
	if _, err := fs.Stat(fsys, path.Join(dir, "go.mod")); !errors.Is(err, fs.ErrNotExist) {
		return fs.SkipDir
	}
	return nil
}

func inspectFile(fsys fs.FS, name string) ([]string, error) {
	r, ok := roomOf(path.Dir(name))
	if !ok {
		return []string{fmt.Sprintf("directory %s has no row in the rooms of arch_test.go: add one that says what it may "+
			"import, and a line in docs/architecture.md that says what it is, or put the code into a room there is",
			path.Dir(name))}, nil
	}
	src, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, src, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	faults := slices.Concat(judgeName(r, name), judgeImports(r, name, file))
	if !ast.IsGenerated(file) {
		faults = append(faults, judgeLength(files, name, file)...)
	}
	return faults, nil
}

func roomOf(dir string) (room, bool) {
	i := slices.IndexFunc(rooms, func(r room) bool { return covers(r.dir, dir) })
	if i < 0 {
		return room{}, false
	}
	return rooms[i], true
}

// covers reports whether a row's directory, which may end in "/...", stands for dir.
func covers(row, dir string) bool {
	parent, isTree := strings.CutSuffix(row, "/...")
	return dir == parent || isTree && strings.HasPrefix(dir, parent+"/")
}

// systems are those that a file can be named for and meet on a developer's machine; the go tool knows more.
var systems = []string{"linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "js", "wasip1", "plan9"}

func judgeName(r room, name string) []string {
	stem, isTest := strings.CutSuffix(strings.TrimSuffix(name, ".go"), "_test")
	_, system, _ := cutLast(path.Base(stem), "_")
	switch {
	case isTest || !slices.Contains(systems, system):
		return nil
	case !r.os:
		return []string{fmt.Sprintf("%s is dropped by the go tool on every system but %s, and %s is for all of them: "+
			"name a format posix or nt", name, system, r.dir)}
	case system != "linux":
		return []string{fmt.Sprintf("%s: what is not for Linux goes into x_other.go", name)}
	}
	return nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func judgeImports(r room, name string, file *ast.File) []string {
	var faults []string
	isTest := strings.HasSuffix(name, "_test.go")
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			faults = append(faults, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		fault := ""
		first, _, _ := strings.Cut(imported, "/")
		if inside, ok := cutModule(imported); ok {
			fault = judgeOurs(r, inside, isTest)
		} else if strings.Contains(first, ".") && !isTest {
			fault = judgeTheirs(r, path.Dir(name), imported)
		}
		if fault != "" {
			faults = append(faults, fmt.Sprintf("%s: %s imports %s: %s", name, path.Dir(name), shown(imported), fault))
		}
	}
	return faults
}

func cutModule(imported string) (string, bool) {
	if imported == module {
		return ".", true
	}
	return strings.CutPrefix(imported, module+"/")
}

func shown(imported string) string {
	if inside, ok := cutModule(imported); ok {
		return inside
	}
	return imported
}

func judgeOurs(r room, inside string, isTest bool) string {
	if covers(r.dir, inside) {
		return ""
	}
	target, ok := roomOf(inside)
	switch {
	case !ok:
		return "no such room"
	case target.forTest && (isTest || r.forTest):
		return ""
	case target.forTest:
		return "only tests may"
	case !slices.Contains(r.ours, target.dir):
		return fmt.Sprintf("%s may import %v of this module", r.dir, r.ours)
	}
	return ""
}

func judgeTheirs(r room, dir, imported string) string {
	if r.stdOnly {
		return "this room keeps to the standard library"
	}
	var row *dependency
	for i, d := range dependencies {
		if covers(d.path+"/...", imported) && (row == nil || len(d.path) > len(row.path)) {
			row = &dependencies[i]
		}
	}
	switch {
	case row == nil:
		return "it has no row among the dependencies of arch_test.go: say there who may import it, and in the change why"
	case row.rooms != nil && !slices.ContainsFunc(row.rooms, func(allowed string) bool { return covers(allowed, dir) }):
		return fmt.Sprintf("only %v may", row.rooms)
	}
	return ""
}

func judgeLength(files *token.FileSet, name string, file *ast.File) []string {
	var faults []string
	line := func(p token.Pos) int { return files.Position(p).Line }
	if n := files.File(file.Pos()).LineCount() - 1; n > maxFileLines { // it counts the empty one after the last newline
		faults = append(faults, fmt.Sprintf("%s has %d lines, more than %d: split it", name, n, maxFileLines))
	}
	if n := line(file.End()) - line(file.Package) + 1; file.Name.Name == "main" && strings.HasPrefix(name, "cmd/") && n > maxMainLines {
		faults = append(faults, fmt.Sprintf("%s has %d lines from its package clause, more than %d: a main only calls",
			name, n, maxMainLines))
	}
	if strings.HasSuffix(name, "_test.go") {
		return faults
	}
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if n := line(f.End()) - line(f.Pos()) + 1 - tableLines(f, line); n > maxFunctionLines {
			faults = append(faults, fmt.Sprintf("%s: %s has %d lines, more than %d: split it", name, f.Name, n, maxFunctionLines))
		}
	}
	return faults
}

// tableLines counts the lines inside of composite literals, which are data.
func tableLines(f *ast.FuncDecl, line func(token.Pos) int) int {
	n := 0
	ast.Inspect(f, func(node ast.Node) bool {
		literal, ok := node.(*ast.CompositeLit)
		if ok {
			n += line(literal.End()) - line(literal.Pos())
		}
		return !ok
	})
	return n
}

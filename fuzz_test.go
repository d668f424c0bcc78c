package hcs_test

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// parserRooms are the rooms that read what somebody else has written.
var parserRooms = []string{
	"ntfs", "regf", "layer", "disk", "rootfs", "bundle", "image", "internal/mtree", "internal/ntfs3g", "internal/passwd", "internal/wire",
	"internal/userns", "compat/hcsshim/internal/transfer",
}

// parserName is what functions are called that read a format: all of them are to be fuzzed.
var parserName = regexp.MustCompile(`^((Parse|Decode|Unmarshal|Replay|Merge|Diff)([A-Z].*)?|(parse|decode|Read)[A-Z].*|New.*Reader)$`)

// notFuzzed are functions with such a name that need none, and why.
var notFuzzed = map[string]string{
	"layer.ParseCompression": "a word of a list",
	"disk.ParseFormat":       "a word of a list",
	"disk.ReadNTFS":          "the programs of ntfs-3g read the volume",

	"internal/wire.parseControl": "the kernel writes it, and package syscall reads it",
	"internal/wire.parseHeader":  "three fields of eight bytes",
	"internal/userns.parseMap":   "the kernel writes it",
}

// TestEveryParserIsFuzzed follows the calls of each room's fuzz targets, through its tests and its own code, and wants every
// function that reads a format of bytes or text to be among them.
func TestEveryParserIsFuzzed(t *testing.T) {
	t.Parallel()
	for _, dir := range parserRooms {
		code, tests := callsIn(t, dir, false), callsIn(t, dir, true)
		reached := make(map[string]bool)
		var follow func(name string)
		follow = func(name string) {
			if reached[name] {
				return
			}
			reached[name] = true
			for _, n := range slices.Concat(tests[name], code[name]) {
				follow(n)
			}
		}
		for name := range tests {
			if strings.HasPrefix(name, "Fuzz") {
				follow(name)
			}
		}
		for name := range code {
			if parserName.MatchString(name) && !reached[name] && name != "ReadAt" && name != "ReadFile" {
				if _, known := notFuzzed[dir+"."+name]; !known {
					t.Errorf("no fuzz target of %s reaches %s", dir, name)
				}
			}
		}
	}
	for name := range notFuzzed {
		dir, last := path.Split(strings.Replace(name, ".", "/", 1))
		if _, there := callsIn(t, path.Clean(dir), false)[last]; !there {
			t.Errorf("there is no %s", name)
		}
	}
}

// TestFuzzTargetsHaveOneName wants no two of a package, its tests from outside included, to be called the same: go test -fuzz
// runs neither then.
func TestFuzzTargetsHaveOneName(t *testing.T) {
	t.Parallel()
	all := make(map[string]bool)
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && name != "." {
			return cmp.Or(err, fs.SkipDir)
		}
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && strings.HasPrefix(f.Name.Name, "Fuzz") {
				target := filepath.Dir(name) + "." + f.Name.Name
				if all[target] {
					t.Errorf("there are two of %s", target)
				}
				all[target] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 30 {
		t.Errorf("there are %d targets", len(all))
	}
}

// callsIn returns the functions and methods of a directory's files, and what names are used in each.
func callsIn(t *testing.T, dir string, tests bool) map[string][]string {
	t.Helper()
	calls := make(map[string][]string)
	names, err := fs.Glob(os.DirFS("."), filepath.Join(dir, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s has no files: %v", dir, err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") != tests || strings.HasSuffix(name, "_other.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				calls[f.Name.Name] = append(calls[f.Name.Name], namesIn(f)...)
			}
		}
	}
	return calls
}

func namesIn(f *ast.FuncDecl) (names []string) {
	if f.Body == nil {
		return nil
	}
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && !slices.Contains(names, id.Name) {
			names = append(names, id.Name)
		}
		return true
	})
	return names
}

package hcsshim_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// notYet are the parts of the API that are still to come, whole halves and single names. What there is of a half must have
// the right form already, and a name that there is must go from here.
var notYet = []string{
	"network",
}

// packages are the directories of the packages that testdata/api.txt names.
var packages = map[string]string{"hcsshim": ".", "wclayer": "wclayer"}

// TestAPI holds the exported names of these packages against hcsshim's: every one must be there, with the same parameters,
// results, fields, tags and values. Names of parameters, unexported fields and the packages that types come from may differ.
func TestAPI(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/api.txt")
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]map[string]string)
	for name, dir := range packages {
		have[name] = exported(t, dir)
	}
	compared := 0
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.SplitN(strings.TrimSpace(line), " ", 3)
		for key, want := range declarations(t, "package p\n"+f[2]) {
			got, ok := have[f[0]][key]
			switch {
			case ok && slices.Contains(notYet, key):
				t.Errorf("%s.%s is there: take it off the list", f[0], key)
			case !ok && (slices.Contains(notYet, f[1]) || slices.Contains(notYet, key)):
			case !ok:
				t.Errorf("%s.%s is missing: %s", f[0], key, want)
			case got != want:
				t.Errorf("%s.%s is\n%s\nwant\n%s", f[0], key, got, want)
			default:
				compared++
			}
		}
	}
	if compared < 100 {
		t.Errorf("only %d names were compared", compared)
	}
}

// exported returns the normal form of each exported declaration of a directory, with aliases of the packages below it
// resolved.
func exported(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, "_other.go") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for key, form := range declarations(t, string(src)) {
			all[key] = resolve(t, dir, key, form, all)
		}
	}
	return all
}

var aliasOf = regexp.MustCompile(`^type = (\w+)\.(\w+)$`)

// resolve follows an alias to a package in this directory, whose methods become the alias's.
func resolve(t *testing.T, dir, key, form string, all map[string]string) string {
	t.Helper()
	m := aliasOf.FindStringSubmatch(form)
	if m == nil {
		return form
	}
	for _, candidate := range []string{m[1], "internal/" + m[1]} {
		if _, err := os.Stat(filepath.Join(dir, candidate)); err != nil {
			continue
		}
		theirs := exported(t, filepath.Join(dir, candidate))
		for k, f := range theirs {
			if method, ok := strings.CutPrefix(k, m[2]+"."); ok {
				all[key+"."+method] = f
			}
		}
		return theirs[m[2]]
	}
	return form
}

// declarations returns the normal form of each exported name in a source, methods as Type.Name.
func declarations(t *testing.T, src string) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "", src, 0)
	if err != nil {
		t.Fatalf("parse %q: %v", src, err)
	}
	all := make(map[string]string)
	add := func(key, form string) {
		if ast.IsExported(key[strings.LastIndexByte(key, '.')+1:]) {
			all[key] = form
		}
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			add(funcKey(d), "func"+signature(d.Type))
		case *ast.GenDecl:
			for _, s := range d.Specs {
				describeSpec(d.Tok, s, add)
			}
		}
	}
	return all
}

func funcKey(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return d.Name.Name
	}
	return strings.TrimPrefix(text(d.Recv.List[0].Type), "*") + "." + d.Name.Name
}

func describeSpec(tok token.Token, s ast.Spec, add func(key, form string)) {
	switch s := s.(type) {
	case *ast.TypeSpec:
		if s.Assign.IsValid() {
			add(s.Name.Name, "type = "+qualified(s.Type))
			return
		}
		add(s.Name.Name, typeForm(s.Type))
	case *ast.ValueSpec:
		for i, n := range s.Names {
			if i < len(s.Values) {
				add(n.Name, tok.String()+" = "+strings.ToLower(text(s.Values[i])))
			}
		}
	}
}

func typeForm(e ast.Expr) string {
	var members []string
	switch e := e.(type) {
	case *ast.StructType:
		for _, f := range e.Fields.List {
			for _, n := range f.Names {
				if n.IsExported() {
					members = append(members, n.Name+" "+text(f.Type)+tag(f))
				}
			}
		}
		slices.Sort(members)
		return "struct { " + strings.Join(members, "; ") + " }"
	case *ast.InterfaceType:
		for _, f := range e.Methods.List {
			if m, ok := f.Type.(*ast.FuncType); ok {
				members = append(members, f.Names[0].Name+signature(m))
			}
		}
		slices.Sort(members)
		return "interface { " + strings.Join(members, "; ") + " }"
	}
	return text(e)
}

// tag returns a field's tag. A malformed one, of which hcsshim has one, is none to encoding/json.
func tag(f *ast.Field) string {
	if f.Tag == nil {
		return ""
	}
	if _, ok := reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Lookup("json"); !ok {
		return ""
	}
	return " " + f.Tag.Value
}

// signature is the types of parameters and results.
func signature(f *ast.FuncType) string {
	return "(" + fieldTypes(f.Params) + ") (" + fieldTypes(f.Results) + ")"
}

func fieldTypes(l *ast.FieldList) string {
	var types []string
	if l == nil {
		return ""
	}
	for _, f := range l.List {
		types = append(types, slices.Repeat([]string{text(f.Type)}, max(1, len(f.Names)))...)
	}
	return strings.Join(types, ", ")
}

var qualifier = regexp.MustCompile(`\b[a-z]\w*\.([A-Z])`)

// text prints an expression without the packages that its names are from.
func text(e ast.Expr) string {
	return strings.ReplaceAll(qualifier.ReplaceAllString(qualified(e), "$1"), "interface{}", "any")
}

func qualified(e ast.Expr) string {
	var out bytes.Buffer
	if err := printer.Fprint(&out, token.NewFileSet(), e); err != nil {
		return fmt.Sprint(err)
	}
	return out.String()
}

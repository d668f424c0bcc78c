package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode"
)

// templated prints a line for each value. As with docker "table " before the template aligns what is between tabs, below a
// line with the fields' titles.
func templated[T any](w io.Writer, text string, values []T) error {
	rest, isTable := strings.CutPrefix(text, "table ")
	// A shell's "\t" and "\n" in quotes are meant as these.
	rest = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(rest)
	t, err := template.New("").Funcs(templateFuncs()).Parse(rest)
	if err != nil {
		return templateError[T](text, err)
	}
	flush := func() error { return nil }
	if isTable {
		table := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
		w, flush = table, table.Flush
		if line, err := execute(t, titles(reflect.TypeFor[T]())); err == nil { // else it takes fields for more than texts
			_, _ = line.WriteTo(w) // which is in memory
		}
	}
	for _, v := range values {
		line, err := execute(t, v)
		if err != nil {
			return errors.Join(templateError[T](text, err), flush())
		}
		if _, err := line.WriteTo(w); err != nil {
			return err
		}
	}
	return flush()
}

// execute makes a whole line or none.
func execute(t *template.Template, v any) (*bytes.Buffer, error) {
	line := new(bytes.Buffer)
	if err := t.Execute(line, v); err != nil {
		return nil, err
	}
	line.WriteByte('\n')
	return line, nil
}

func templateFuncs() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			var b strings.Builder
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			err := e.Encode(v)
			return strings.TrimSuffix(b.String(), "\n"), err
		},
		"join": strings.Join, "lower": strings.ToLower, "upper": strings.ToUpper, "split": strings.Split,
		"title": func(s string) string {
			if s == "" {
				return s
			}
			return strings.ToUpper(s[:1]) + s[1:]
		},
		"println": fmt.Sprintln,
		"pad": func(s string, before, after int) string {
			return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
		},
		"truncate": func(s string, n int) string {
			r := []rune(s)
			return string(r[:min(max(0, n), len(r))])
		},
	}
}

// titles are those of the fields of a row, by their names: what the tag "title" says, or the name's words.
func titles(t reflect.Type) rowTitles {
	m := make(rowTitles)
	for _, f := range fields(t) {
		if m[f.Name] = f.Tag.Get("title"); m[f.Name] == "" {
			m[f.Name] = heading(f.Name)
		}
	}
	return m
}

type rowTitles map[string]string

// Label is for templates, as it is of rows.
func (rowTitles) Label(key string) string { return heading(key) }

// heading has the words of a name in capitals: "CREATED AT" for "CreatedAt".
func heading(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) && !unicode.IsUpper(rune(name[i-1])) {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}

// fields are those that templates have of a type.
func fields(t reflect.Type) []reflect.StructField {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var list []reflect.StructField
	for _, f := range reflect.VisibleFields(t) {
		if f.IsExported() && !f.Anonymous {
			list = append(list, f)
		}
	}
	return list
}

// templateError says what is wrong with a template, without what only its library knows.
func templateError[T any](text string, err error) error {
	what := err.Error()
	if _, ok := errors.AsType[template.ExecError](err); ok {
		if i := strings.Index(what, "at <"); i >= 0 {
			what = what[i:]
		}
		if field, _, isMissing := strings.Cut(what, ": can't evaluate field "); isMissing {
			what = field + ": there is no such field" + known(reflect.TypeFor[T]())
		}
	}
	what = strings.TrimPrefix(what, "template: :1: ")
	return usage(fmt.Sprintf("format %q: %s", text, what))
}

// known lists the fields of a row.
func known(t reflect.Type) string {
	var names []string
	for _, f := range fields(t) {
		names = append(names, f.Name)
	}
	if names == nil {
		return ""
	}
	return ": there are " + strings.Join(names, ", ")
}

package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

type layerDiffOptions struct{ layerSource }

func newLayerDiff(a *app) *cobra.Command {
	var o layerDiffOptions
	c := &cobra.Command{
		Use:   "diff [flags] A B",
		Short: "Show what layer B has otherwise than layer A",
		Long: `Compare two layers, entry by entry. A line is A for what is added, M for what is
modified and how, D for what is deleted. For a hive that both have, what changes
in the registry follows as .reg text.

` + strings.Replace(layerUsage, "LAYER is", "Each layer is", 1),
		Args: takes(2, 2, "two layers"),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0], args[1]) },
	}
	o.addFlags(c.Flags())
	return c
}

// layerSide is all of a layer but its content; hives are kept.
type layerSide struct {
	files map[string]layerFile
	hives map[string][]byte
	keys  map[string]string
}

func (o *layerDiffOptions) run(ctx context.Context, a *app, refA, refB string) error {
	before, err := o.read(ctx, a, refA)
	if err != nil {
		return err
	}
	after, err := o.read(ctx, a, refB)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(a.out)
	return errors.Join(printLayerDiff(w, before, after), w.Flush())
}

func (o *layerDiffOptions) read(ctx context.Context, a *app, ref string) (layerSide, error) {
	s := layerSide{make(map[string]layerFile), make(map[string][]byte), make(map[string]string)}
	var files layerFiles
	err := o.each(ctx, a, ref, func(r *layer.Reader, e *layer.Entry) error {
		name := e.Name
		if r.Encoding() == layer.NT {
			name = ntfs.Upcase(e.Name + "\x00" + e.Stream) // a directory comes before what is in it
		}
		f := files.file(e)
		if at := hiveKey(e); at != "" && e.NT != nil && e.Size <= maxHive {
			data, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			s.hives[name], s.keys[name] = data, at
			f.Digest = digest.FromBytes(data)
			s.files[name] = f
			return nil
		}
		err := f.addDigest(e, r)
		s.files[name] = f
		return err
	})
	return s, err
}

func printLayerDiff(w io.Writer, a, b layerSide) error {
	names := slices.Collect(maps.Keys(a.files))
	for name := range b.files {
		if _, both := a.files[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var errs []error
	for _, name := range names {
		_, err := io.WriteString(w, a.change(b, name))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// change returns the lines on one name.
func (s layerSide) change(other layerSide, name string) string {
	before, isBefore := s.files[name]
	after, isAfter := other.files[name]
	switch {
	case !isBefore:
		return fmt.Sprintf("A %s\n", after.path())
	case !isAfter:
		return fmt.Sprintf("D %s\n", before.path())
	}
	what := before.differences(after)
	if len(what) == 0 {
		return ""
	}
	text := fmt.Sprintf("M %s (%s)\n", after.path(), strings.Join(what, ", "))
	lower, upper := s.hives[name], other.hives[name]
	if lower == nil || upper == nil || bytes.Equal(lower, upper) {
		return text
	}
	reg, err := registryChange(lower, upper, s.keys[name])
	if err != nil {
		reg = "the hives cannot be compared: " + err.Error() + "\n"
	}
	for line := range strings.Lines(reg) {
		text += strings.TrimRight("    "+line, " \r\n") + "\n"
	}
	return text
}

// differences names the fields that differ, as the JSON listing has them, and
// says of short ones what they were and are.
func (f layerFile) differences(g layerFile) []string {
	a, b := f.fields(), g.fields()
	keys := slices.Sorted(maps.Keys(a))
	for key := range b {
		if _, both := a[key]; !both {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	var what []string
	for _, key := range keys {
		if reflect.DeepEqual(a[key], b[key]) {
			continue
		}
		switch key {
		case "name", "attributes", "sddl", "kind", "mode", "target", "link":
			what = append(what, fmt.Sprintf("%s %s -> %s", key, shownField(a[key]), shownField(b[key])))
		case "attributeBits", "nt", "nameBytes", "streamBytes", "linkBytes": // told by others
		default:
			what = append(what, key)
		}
	}
	return what
}

func shownField(v any) string {
	if v == nil {
		return "none"
	}
	return quoted(fmt.Sprint(v))
}

// fields are those of the JSON form, Windows' own among them.
func (f layerFile) fields() map[string]any {
	var m map[string]any
	data, err := json.Marshal(f)
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		panic(err) // strings, numbers and times: there is nothing that JSON cannot say
	}
	if nt, ok := m["nt"].(map[string]any); ok {
		maps.Copy(m, nt)
		if m["sddl"] != nil {
			delete(m, "securityDescriptor")
		}
	}
	delete(m, "nt")
	return m
}

package layer_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/layer"
)

func TestNTVectors(t *testing.T) {
	t.Parallel()
	vectors, err := layertest.NTVectors()
	must(t, err)
	if len(vectors) < 100 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	for _, v := range vectors {
		t.Run(v.File+"/"+v.Name, func(t *testing.T) {
			t.Parallel()
			class, ok := outcomes[v.Want]
			if !ok || len(v.Layers) != 1 {
				t.Fatalf("outcome %q, %d layers", v.Want, len(v.Layers))
			}
			got, warnings, err := readNTVector(v, layer.ReadOptions{Encoding: layer.NT})
			if !errors.Is(err, class) || (err == nil) != (class == nil) {
				t.Errorf("got error %v, want %s", err, v.Want)
			}
			if err != nil && !strings.Contains(err.Error(), v.Why) {
				t.Errorf("got error %v, want one about %s", err, v.Why)
			}
			if !slices.Equal(got, v.Gives) {
				t.Errorf("got entries\n%q\nwant\n%q", got, v.Gives)
			}
			if v.Want == "ok" && !slices.Equal(warnings, v.Warns) {
				t.Errorf("got warnings %q, want %q", warnings, v.Warns)
			}
			checkStrict(t, v)
			if v.Want == "ok" {
				if out := rewriteNT(t, v.Layers[0], unchanged); !bytes.Equal(out, v.Layers[0]) {
					t.Error("written again with different bytes")
				}
			}
		})
	}
}

// checkStrict checks that what is mended is refused by those who are strict.
func checkStrict(t *testing.T, v layertest.Vector) {
	t.Helper()
	_, warnings, err := readNTVector(v, layer.ReadOptions{Encoding: layer.NT, Strict: true})
	if len(warnings) > 0 {
		t.Errorf("read strictly: warnings %q", warnings)
	}
	if wantErr := v.Want != "ok" || len(v.Warns) > 0; (err != nil) != wantErr {
		t.Errorf("read strictly: %v", err)
	}
	if len(v.Warns) > 0 && v.Want == "ok" && (!errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), v.Warns[0])) {
		t.Errorf("read strictly: %v", err)
	}
}

func readNTVector(v layertest.Vector, o layer.ReadOptions) (got, warnings []string, err error) {
	for field, n := range v.Limits {
		reflect.ValueOf(&o.Limits).Elem().FieldByName(field).SetInt(n)
	}
	o.Warn = func(w layer.Warning) { warnings = append(warnings, string(w.Problem)) }
	r := o.NewReader(bytes.NewReader(v.Layers[0]))
	for e, err := range r.All() {
		if err != nil {
			return got, warnings, checkEntryError(err)
		}
		got = append(got, describeNT(e))
		if _, err := io.Copy(io.Discard, r); err != nil {
			return got[:len(got)-1], warnings, checkEntryError(err)
		}
	}
	return got, warnings, nil
}

func checkEntryError(err error) error {
	var entryErr *layer.EntryError
	if !errors.As(err, &entryErr) {
		return fmt.Errorf("error is a %T: %w", err, err)
	}
	return err
}

func describeNT(e *layer.Entry) string {
	s := fmt.Sprintf("%s %q", e.Kind, e.Name)
	if e.Link != "" {
		s += fmt.Sprintf(" -> %q", e.Link)
	}
	if e.Stream != "" {
		s += fmt.Sprintf(" : %q", e.Stream)
	}
	if e.Implied {
		s += " implied"
	}
	return s
}

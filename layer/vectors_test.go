package layer_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/layertest"
	"github.com/hostcompute/hcs/layer"
)

// outcomes are the words of the vectors for how reading ends.
var outcomes = map[string]error{
	"ok": nil, "invalid": errdefs.ErrInvalidArgument, "exhausted": errdefs.ErrResourceExhausted, "cut": errdefs.ErrDataLoss,
}

func TestVectors(t *testing.T) {
	t.Parallel()
	vectors, err := layertest.Vectors()
	if err != nil {
		t.Fatal(err)
	}
	if len(vectors) < 100 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	for _, v := range vectors {
		t.Run(v.File+"/"+v.Name, func(t *testing.T) {
			t.Parallel()
			class, ok := outcomes[v.Want]
			if !ok {
				t.Fatalf("unknown outcome %q", v.Want)
			}
			got, err := readVector(v)
			if !errors.Is(err, class) || (err == nil) != (class == nil) {
				t.Errorf("got error %v, want %s", err, v.Want)
			}
			if err != nil && !strings.Contains(err.Error(), v.Why) {
				t.Errorf("got error %v, want one about %s", err, v.Why)
			}
			var entryErr *layer.EntryError
			if err != nil && !errors.As(err, &entryErr) {
				t.Errorf("error is a %T", err)
			}
			if !slices.Equal(got, v.Gives) {
				t.Errorf("got entries\n%q\nwant\n%q", got, v.Gives)
			}
			for _, l := range v.Layers {
				checkLentPOSIX(t, l, layer.Limits{})
			}
			if v.Want == "ok" {
				for _, l := range v.Layers {
					if out := rewrite(t, l); !bytes.Equal(out, l) {
						t.Errorf("written again: %d bytes that differ from the %d read", len(out), len(l))
					}
				}
			}
		})
	}
}

func readVector(v layertest.Vector) (got []string, err error) {
	var limits layer.Limits
	for field, n := range v.Limits {
		reflect.ValueOf(&limits).Elem().FieldByName(field).SetInt(n)
	}
	for _, l := range v.Layers {
		for e, err := range layer.NewReader(bytes.NewReader(l), limits).All() {
			if err != nil {
				return got, err
			}
			s := fmt.Sprintf("%s %q", e.Kind, e.Name)
			if e.Link != "" {
				s += fmt.Sprintf(" -> %q", e.Link)
			}
			got = append(got, s)
		}
	}
	return got, nil
}

// rewrite reads a layer and writes it again.
func rewrite(t testing.TB, in []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	r := layer.NewReader(bytes.NewReader(in), layer.Limits{})
	w := layer.NewWriter(&out)
	for e, err := range r.All() {
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(e, r); err != nil {
			t.Fatal(err)
		}
	}
	trailer, err := r.Trailer()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.CloseWith(trailer); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

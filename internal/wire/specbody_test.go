package wire_test

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/wire"
)

// fill gives every field, of those that there will be too, a value of its own.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("text ", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	default:
		panic("a field of kind " + v.Kind().String())
	}
}

func TestPlanTravels(t *testing.T) {
	var spec, got wire.Spec
	fill(reflect.ValueOf(&spec).Elem(), new(int))
	birth := spec.Native.Birth
	spec.Native.Birth = wire.Birth{} // travels by itself
	body := spec.Encode()
	if err := got.Decode(body); err != nil || cmp.Diff(spec, got) != "" {
		t.Errorf("%v, %s", err, cmp.Diff(spec, got))
	}
	for n := range len(body) {
		if err := new(wire.Spec).Decode(body[:n]); err == nil {
			t.Errorf("a plan cut to %d bytes decodes", n)
		}
	}
	empty := wire.Spec{Log: wire.Log{MaxSize: -1}}
	if err := got.Decode(empty.Encode()); err != nil || cmp.Diff(empty, got) != "" {
		t.Errorf("%v, %s", err, cmp.Diff(empty, got))
	}

	var born wire.Birth
	body = birth.Encode()
	if err := born.Decode(body); err != nil || cmp.Diff(birth, born) != "" {
		t.Errorf("%v, %s", err, cmp.Diff(birth, born))
	}
	for n := range len(body) {
		if err := new(wire.Birth).Decode(body[:n]); err == nil {
			t.Errorf("a birth cut to %d bytes decodes", n)
		}
	}
	if err := born.Decode((&wire.Birth{}).Encode()); err != nil || cmp.Diff(wire.Birth{}, born) != "" {
		t.Errorf("%v, %+v", err, born)
	}
}

package container

import (
	"slices"
	"testing"
)

func TestParseCPUs(t *testing.T) {
	for _, tt := range []struct {
		list string
		want []int
	}{
		{"0", []int{0}},
		{"0-3,7", []int{0, 1, 2, 3, 7}},
		{"7,1-2,2", []int{1, 2, 7}},
		{"8191", []int{8191}},
		{"", nil},
		{",", nil},
		{"1,", nil},
		{"-", nil},
		{"1-", nil},
		{"-1", nil},
		{"3-1", nil},
		{"1-2-3", nil},
		{"a", nil},
		{" 1", nil},
		{"0-8192", nil},
		{"18446744073709551616", nil},
	} {
		got, err := parseCPUs(tt.list)
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.want != nil) {
			t.Errorf("%q: got %v, %v", tt.list, got, err)
		}
	}
}

package cli

import (
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/container"
)

// TestStopLimit has the flag count more than what the container was made with.
func TestStopLimit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		own  *int
		want time.Duration
	}{
		{nil, nil, 10 * time.Second},
		{nil, new(0), 0},
		{nil, new(-1), -time.Second},
		{nil, new(90), 90 * time.Second},
		{[]string{"-t", "0.5"}, new(90), 500 * time.Millisecond},
		{[]string{"--timeout", "10"}, new(0), 10 * time.Second},
		{[]string{"--time=-1"}, new(0), -time.Second},
	} {
		var o stopOptions
		f := pflag.NewFlagSet("stop", pflag.ContinueOnError)
		o.addFlags(f)
		if err := f.Parse(tt.args); err != nil {
			t.Fatal(err)
		}
		if got := o.limit(&container.Spec{StopTimeout: tt.own}); got != tt.want {
			t.Errorf("%q, made with %v: got %v, want %v", tt.args, tt.own, got, tt.want)
		}
	}
}

package container

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestChooseRuntime(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	crun := filepath.Join(dir, "crun")
	if err := os.WriteFile(crun, []byte("#!/bin/sh\necho crun version 1.99\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	fault := errors.New("fsopen: function not implemented")
	for _, tt := range []struct {
		name    string
		against error
		want    string
	}{
		{"", nil, "native"},
		{"native", nil, "native"},
		{"", fault, "crun 1.99 (" + crun + "), for want of the native starter: fsopen: function not implemented"},
		{"crun", nil, "crun 1.99 (" + crun + ")"},
		{crun, fault, "crun 1.99 (" + crun + ")"},
	} {
		for range 2 { // the second time from the cache
			r, err := chooseRuntime(tt.name, filepath.Join(dir, "cache"), tt.against)
			if err != nil || r.String() != tt.want {
				t.Errorf("%q, %v: got %v, %v", tt.name, tt.against, r, err)
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(text); n += 7 { // what is left by who was killed while he wrote it
		if err := os.WriteFile(filepath.Join(dir, "cache"), text[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := chooseRuntime("crun", filepath.Join(dir, "cache"), nil); err != nil || r.Version != "1.99" {
			t.Errorf("cache of %d bytes: %v, %v", n, r, err)
		}
	}
	_, err = chooseRuntime("native", filepath.Join(dir, "cache"), fault)
	if !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), fault.Error()) {
		t.Errorf("native where it cannot: %v", err)
	}
	runtimes := runtimeNames
	runtimeNames = []string{"no-such-runtime"}
	defer func() { runtimeNames = runtimes }()
	_, err = chooseRuntime("", filepath.Join(dir, "cache"), fault)
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), fault.Error()) {
		t.Errorf("nothing that can: %v", err)
	}
}

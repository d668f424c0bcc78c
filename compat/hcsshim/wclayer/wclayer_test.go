package wclayer_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hostcompute/hcs/compat/hcsshim/wclayer"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestGetSharedBaseImages(t *testing.T) {
	type image struct {
		Name, Version, Path string
		Size                int64
		CreatedTime         time.Time
	}
	dir := t.TempDir()
	t.Setenv(wclayer.BaseImagesVariable, dir)
	list := func() (images struct{ Images []image }) {
		t.Helper()
		out, err := wclayer.GetSharedBaseImages(t.Context())
		check(t, err)
		check(t, json.Unmarshal([]byte(out), &images))
		if images.Images == nil {
			t.Errorf("the list is null: %s", out)
		}
		return images
	}
	if got := list().Images; len(got) > 0 {
		t.Errorf("an empty directory has %v", got)
	}

	check(t, os.MkdirAll(filepath.Join(dir, "nano_server_1809", "Files", "Windows"), 0o700))
	check(t, os.WriteFile(filepath.Join(dir, "nano_server_1809", "Files", "Windows", "notepad.exe"), make([]byte, 1000), 0o600))
	check(t, os.MkdirAll(filepath.Join(dir, "core", "Files"), 0o700))
	check(t, os.Symlink("/", filepath.Join(dir, "core", "Files", "link")))
	check(t, os.Mkdir(filepath.Join(dir, "nothing"), 0o700))
	check(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	images := list().Images
	if len(images) != 2 {
		t.Fatalf("got %v", images)
	}
	for i, want := range []image{
		{Name: "core", Path: filepath.Join(dir, "core")},
		{Name: "nano_server", Version: "1809", Path: filepath.Join(dir, "nano_server_1809"), Size: 1000},
	} {
		if images[i].CreatedTime.IsZero() {
			t.Errorf("%s has no time", images[i].Name)
		}
		images[i].CreatedTime = time.Time{}
		if images[i] != want {
			t.Errorf("got %v, want %v", images[i], want)
		}
	}

	t.Setenv(wclayer.BaseImagesVariable, filepath.Join(dir, "missing"))
	if got := list().Images; len(got) > 0 {
		t.Errorf("a missing directory has %v", got)
	}
}

func TestGrantVmAccess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, link := filepath.Join(dir, "sandbox.vhdx"), filepath.Join(dir, "link")
	check(t, os.WriteFile(file, nil, 0o600))
	const vm = "bd9c3ef9-f239-59b5-a27e-15c523b1d149"
	check(t, os.Symlink(file, link))
	for _, c := range []struct {
		vm, path string
		want     syscall.Errno
	}{
		{vm, file, 0},
		{"{" + vm + "}", file, 0x57},
		{"vm", file, 0x57},
		{"", file, 0x57},
		{vm, dir, 0x57},
		{vm, link, 0x57},
		{vm, file + "x", 0x3},
	} {
		err := wclayer.GrantVmAccess(t.Context(), c.vm, c.path)
		if (err == nil) != (c.want == 0) || err != nil && !errors.Is(err, c.want) {
			t.Errorf("%q, %s: %v, want code %#x", c.vm, c.path, err, uintptr(c.want))
		}
	}
}

// TestContext gives every call a context that is over: nothing happens.
func TestContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	check(t, os.Mkdir(there, 0o700))
	for name, err := range map[string]error{
		"create":  wclayer.CreateLayer(ctx, filepath.Join(dir, "new"), ""),
		"destroy": wclayer.DestroyLayer(ctx, there),
		"scratch": wclayer.CreateScratchLayer(ctx, filepath.Join(dir, "scratch"), []string{there}),
	} {
		if !errors.Is(err, context.Canceled) || !errors.Is(err, syscall.Errno(0x4c7)) {
			t.Errorf("%s: %v, want a cancelled operation", name, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("there is now %v, %v", entries, err)
	}
}

func TestNoParents(t *testing.T) {
	t.Parallel()
	if err := wclayer.CreateScratchLayer(t.Context(), filepath.Join(t.TempDir(), "x"), nil); !errors.Is(err, syscall.Errno(0x57)) {
		t.Errorf("a scratch layer on nothing: %v", err)
	}
}

package cli_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/regf"
)

// TestLayer runs the scripts on Windows layers, which find base.tar, an
// edition of it in base2.tar, child.tar.gz, broken.tar, replaced.tar with a
// file and a whiteout of its name, hives.tar with two hives, and links.tar with
// another name of a file of base.tar, in $LAYERS.
func TestLayer(t *testing.T) {
	t.Parallel()
	layerScripts(t, "testdata/layer", t.TempDir())
}

func layerScripts(t *testing.T, scripts, dir string) {
	t.Helper()
	for name, entries := range windowsLayers(t) {
		if err := writeLayer(filepath.Join(dir, name), entries); err != nil {
			t.Fatal(err)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir: scripts, Cmds: commands, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("LAYERS", dir)
			e.Setenv("HCS_ROOT", filepath.Join(e.WorkDir, ".hcs", "root"))
			e.Setenv("HCS_RUN", filepath.Join(e.WorkDir, ".hcs", "run"))
			return nil
		},
	})
}

type content struct {
	layer.Entry
	data []byte
}

func windowsLayers(t *testing.T) map[string][]content {
	t.Helper()
	base := func(sddl, reg, text string) []content {
		return []content{
			windowsDir(t, "Files", sddl), windowsDir(t, "Hives", sddl),
			windowsDir(t, "Files/Windows", sddl), windowsDir(t, "Files/Windows/System32", sddl),
			windowsDir(t, "Files/Windows/System32/config", sddl),
			windowsFile(t, "Files/Windows/System32/config/SOFTWARE", sddl, hive(t, reg)),
			windowsFile(t, "Files/Windows/win.ini", sddl, []byte(text)),
			{Entry: layer.Entry{Kind: layer.Stream, Name: "Files/Windows/win.ini", Stream: "Zone.Identifier", Size: 4, NT: &ntfs.Meta{}}, data: []byte("zone")},
			{Entry: layer.Entry{Kind: layer.Hardlink, Name: "Files/Windows/other.ini", Link: "Files/Windows/win.ini", NT: &ntfs.Meta{}}},
		}
	}
	const system, admin = "O:SYG:SYD:(A;;FA;;;SY)", "O:BAG:SYD:(A;;FA;;;BA)"
	kept := `[HKEY_LOCAL_MACHINE\SOFTWARE\Kept]` + "\n\"a\"=\"1\"\n"
	first := base(system, kept+`[HKEY_LOCAL_MACHINE\SOFTWARE\Gone]`+"\n", "old\n")
	second := base(admin, kept+"\"b\"=dword:00000007\n", "newer\n")
	child := []content{
		windowsDir(t, "Files", system), windowsDir(t, "Hives", system),
		{Entry: layer.Entry{Kind: layer.Whiteout, Name: "Files/Windows/win.ini", NT: &ntfs.Meta{}}},
	}
	replaced := []content{
		windowsDir(t, "Files", system), windowsDir(t, "Hives", system),
		{Entry: layer.Entry{Kind: layer.Whiteout, Name: "Files/replaced", NT: &ntfs.Meta{}}},
		windowsFile(t, "Files/replaced", system, []byte("new\n")),
	}
	links := []content{
		windowsDir(t, "Files", system), windowsDir(t, "Hives", system),
		{Entry: layer.Entry{Kind: layer.Hardlink, Name: "Files/alias.ini", Link: "Files/Windows/win.ini", NT: &ntfs.Meta{}}},
	}
	const config = "Files/Windows/System32/config/"
	hives := append(
		slices.Clone(first[:5]),
		windowsFile(t, config+"SECURITY", system, hive(t, "[HKEY_LOCAL_MACHINE\\SOFTWARE]\n\"of\"=\"security\"\n")),
		windowsFile(t, config+"SOFTWARE", system, hive(t, "[HKEY_LOCAL_MACHINE\\SOFTWARE]\n\"of\"=\"software\"\n")),
	)
	return map[string][]content{
		"base.tar": first, "base2.tar": second, "child.tar.gz": child, "broken.tar": first[5:],
		"replaced.tar": replaced, "hives.tar": hives, "links.tar": links,
	}
}

func windowsDir(t *testing.T, name, sddl string) content {
	c := windowsFile(t, name, sddl, nil)
	c.Kind, c.NT.Attributes = layer.Dir, ntfs.AttrDirectory
	return c
}

func windowsFile(t *testing.T, name, sddl string, data []byte) content {
	t.Helper()
	d, err := ntfs.ParseSDDL(sddl)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := d.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	when := time.Date(2024, 2, 3, 4, 5, 6, 700, time.UTC)
	return content{data: data, Entry: layer.Entry{
		Kind: layer.File, Name: name, Size: int64(len(data)), ModTime: when, AccessTime: when, ChangeTime: when,
		NT: &ntfs.Meta{Attributes: ntfs.AttrArchive, CreationTime: when, SecurityDescriptor: raw},
	}}
}

// hive makes a hive of .reg text.
func hive(t *testing.T, text string) []byte {
	t.Helper()
	edits, err := regf.ParseText([]byte("Windows Registry Editor Version 5.00\n\n" + text))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := regf.Minimal("SOFTWARE", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Apply(`HKEY_LOCAL_MACHINE\SOFTWARE`, edits); err != nil {
		t.Fatal(err)
	}
	data, err := tree.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeLayer(name string, entries []content) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	compression := layer.None
	if strings.HasSuffix(name, ".gz") {
		compression = layer.Gzip
	}
	b, err := layer.CreateBlob(f, compression)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	for _, c := range entries {
		if err := b.Write(&c.Entry, bytes.NewReader(c.data)); err != nil {
			return err
		}
	}
	_, err = b.Finish()
	return err
}

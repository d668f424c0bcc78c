package regf_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"www.velocidex.com/golang/regparser"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/regf"
)

// ntuser returns a hive of a Windows XP user, of version 1.3, from the test data of the regparser module.
func ntuser(t testing.TB) []byte {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "www.velocidex.com/golang/regparser").Output()
	var data []byte
	if err == nil {
		data, err = os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "testdata", "NTUSER.DAT"))
	}
	if err != nil {
		testenv.NeedRoot(t) // whose module cache the test is built from
		t.Fatal(err)
	}
	return data
}

func parse(t testing.TB, data []byte) *regf.Hive {
	t.Helper()
	h, err := regf.Parse(data)
	must(t, err)
	return h
}

func treeBytes(t testing.TB, tree *regf.Tree) []byte {
	t.Helper()
	data, err := tree.Bytes()
	must(t, err)
	return data
}

func save(t testing.TB, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "hive")
	must(t, os.WriteFile(name, data, 0o600))
	return name
}

func output(t testing.TB, program, file string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(program, file)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", program, err, stderr.Bytes())
	}
	return string(out)
}

// places are what hivexml says of where cells are, which no two writers agree about.
var places = regexp.MustCompile(`<byte_runs>.*?</byte_runs>|<hive><mtime>.*?</mtime>`)

func TestOtherReadersSeeNoDifferenceInRealHive(t *testing.T) {
	t.Parallel()
	programs := testenv.NeedCommand(t, "hivexml", "regfexport")
	original := ntuser(t)
	h := parse(t, original)
	rewritten := treeBytes(t, edit(t, h))
	again := parse(t, rewritten)
	if dump(t, again) != dump(t, h) {
		t.Error("rewritten hive differs")
	}
	must(t, again.Validate())
	before, after := save(t, original), save(t, rewritten)
	if places.ReplaceAllString(output(t, programs[0], before), "") != places.ReplaceAllString(output(t, programs[0], after), "") {
		t.Error("hivexml sees a difference")
	}
	if got := output(t, programs[1], after); got != output(t, programs[1], before) || strings.Count(got, "\nValue: ") != 5602 {
		t.Error("regfexport sees a difference")
	}
	if a, b := regparserDump(t, original), regparserDump(t, rewritten); a != b || strings.Count(a, "key ") != 1127 {
		t.Error("regparser sees a difference")
	}
}

// regparserDump tells a hive as regparser reads it.
func regparserDump(t testing.TB, data []byte) string {
	t.Helper()
	r, err := regparser.NewRegistry(bytes.NewReader(data))
	must(t, err)
	var b strings.Builder
	var visit func(k *regparser.CM_KEY_NODE, path string)
	visit = func(k *regparser.CM_KEY_NODE, path string) {
		fmt.Fprintf(&b, "key %s\n", path)
		for _, v := range k.Values() {
			d := v.ValueData()
			fmt.Fprintf(&b, "  %q %d %q %x %d %q\n", v.ValueName(), d.Type, d.String, d.Data, d.Uint64, d.MultiSz)
		}
		for _, sub := range k.Subkeys() {
			visit(sub, path+`\`+sub.Name())
		}
	}
	visit(r.OpenKey(""), "")
	return b.String()
}

// TestOtherReadersCountTheSame writes hives with everything in them and counts keys and values as others do.
func TestOtherReadersCountTheSame(t *testing.T) {
	t.Parallel()
	programs := testenv.NeedCommand(t, "hivexml", "regfexport", "regfinfo")
	for seed := range uint64(3) {
		tree, err := regf.NewTree("ROOT", nil)
		must(t, err)
		r := seeded(seed)
		keys, values := 1, 0
		for i := range 1200 { // more than one list has
			k, err := tree.Root().CreateSubkey(fmt.Sprintf("key %d", i))
			must(t, err)
			keys++
			for j := range r.IntN(4) {
				v := r.value()
				v.Name, v.Type = fmt.Sprintf("value %d", j), regf.TypeBinary
				must(t, k.SetValue(v))
				values++
			}
		}
		data := treeBytes(t, tree)
		must(t, parse(t, data).Validate())
		file := save(t, data)
		xml := output(t, programs[0], file)
		if k, v := strings.Count(xml, "<node "), strings.Count(xml, "<value "); k != keys || v != values {
			t.Errorf("seed %d: hivexml counts %d keys and %d values of %d and %d", seed, k, v, keys, values)
		}
		text := output(t, programs[1], file)
		if k, v := strings.Count(text, "Key: "), strings.Count(text, "\nValue: "); k != keys || v != values {
			t.Errorf("seed %d: regfexport counts %d keys and %d values of %d and %d", seed, k, v, keys, values)
		}
		output(t, programs[2], file)
		lines := regparserDump(t, data)
		if k := strings.Count(lines, "key \\"); k+1 != keys || strings.Count(lines, "\n")-keys != values {
			t.Errorf("seed %d: regparser counts %d keys of %d", seed, k, keys)
		}
	}
}

func TestMinimalHivesAreRead(t *testing.T) {
	t.Parallel()
	programs := testenv.NeedCommand(t, "hivexml", "regfexport")
	for _, name := range []string{"DEFAULT", "SAM", "SECURITY", "SOFTWARE", "SYSTEM"} {
		tree, err := regf.Minimal(name, 116444736000000000)
		must(t, err)
		data := treeBytes(t, tree)
		if len(data) != 8192 {
			t.Errorf("%s has %d bytes", name, len(data))
		}
		must(t, parse(t, data).Validate())
		file := save(t, data)
		for _, p := range programs {
			if out := output(t, p, file); !strings.Contains(out, name) {
				t.Errorf("%s says of %s: %s", p, name, out)
			}
		}
	}
}

func TestDeltasOfRealHive(t *testing.T) {
	t.Parallel()
	base := parse(t, ntuser(t))
	for seed := range uint64(20) {
		now := seeded(seed).changed(t, base)
		d := delta(t, base, now)
		must(t, d.Validate())
		if dump(t, merged(t, base, d)) != dump(t, now) {
			t.Fatalf("seed %d: merged hive differs", seed)
		}
		if a, b := regparserDump(t, treeBytes(t, edit(t, d))), d; strings.Count(a, "key ") != countKeys(t, b) {
			t.Fatalf("seed %d: regparser counts other keys in the delta", seed)
		}
	}
}

func countKeys(t testing.TB, h *regf.Hive) (n int) {
	t.Helper()
	for _, err := range h.Walk() {
		must(t, err)
		n++
	}
	return n
}

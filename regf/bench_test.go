package regf_test

import (
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"

	"github.com/hostcompute/hcs/regf"
)

// software is a hive of about 100 MB with keys and values as SOFTWARE has them: many small keys two to six deep, one with
// tens of thousands of subkeys, values of some tens of bytes, some of kilobytes.
var software = sync.OnceValues(func() ([]byte, error) {
	tree, err := regf.Minimal("SOFTWARE", 1)
	if err != nil {
		return nil, err
	}
	r := seeded(1)
	for i := range 70000 {
		k, err := tree.Root().Create(fmt.Sprintf(`Classes\CLSID\{%08X-0000-0000-C000-%012X}`, r.Uint32(), i))
		if err != nil {
			return nil, err
		}
		for _, sub := range []string{"InprocServer32", "ProgID", "TypeLib", `Shell\Open\command`} {
			s, err := k.Create(sub)
			if err == nil {
				err = r.fillSoftware(s)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return tree.Bytes()
})

func (r source) fillSoftware(k *regf.Node) error {
	k.SetModified(regf.Filetime(r.Uint64()))
	for _, name := range []string{"", "ThreadingModel", "Version"}[:1+r.IntN(3)] {
		n := 16 + r.IntN(90)
		if r.IntN(200) == 0 {
			n = 6000
		}
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(i)
		}
		if err := k.SetValue(regf.Value{Name: name, Type: regf.TypeExpandString, Data: data}); err != nil {
			return err
		}
	}
	return nil
}

// changes makes a delta of about 1 MB to the hive: keys all over it.
func changes(tb testing.TB, base *regf.Hive) []byte {
	tb.Helper()
	tree := edit(tb, base)
	clsid, err := tree.Root().Lookup(`Classes\CLSID`)
	must(tb, err)
	r := seeded(2)
	i := 0
	for k, err := range clsid.Subkeys() {
		must(tb, err)
		if i++; i%20 != 0 {
			continue
		}
		s, err := k.Subkey("ProgID")
		must(tb, err)
		must(tb, r.fillSoftware(s))
		must(tb, k.DeleteSubkey("TypeLib"))
	}
	d, err := regf.Diff(base, hiveOf(tb, tree))
	must(tb, err)
	return treeBytes(tb, d)
}

func BenchmarkMerge(b *testing.B) {
	data, err := software()
	must(b, err)
	delta := changes(b, parse(b, data))
	b.Logf("hive of %d bytes, delta of %d", len(data), len(delta))
	runtime.GC()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for b.Loop() {
		tree, err := regf.Merge(parse(b, data), parse(b, delta))
		must(b, err)
		_, err = tree.WriteTo(io.Discard)
		must(b, err)
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(b.N)/float64(len(data))+1, "hives-in-memory")
}

func BenchmarkWalk(b *testing.B) {
	data, err := software()
	must(b, err)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		keys := 0
		for _, err := range parse(b, data).Walk() {
			must(b, err)
			keys++
		}
	}
}

func BenchmarkValidate(b *testing.B) {
	data, err := software()
	must(b, err)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		must(b, parse(b, data).Validate())
	}
}

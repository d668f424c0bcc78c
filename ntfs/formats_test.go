package ntfs_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/hostcompute/hcs/ntfs"
)

// upcaseSum is the SHA-256 of the whole $UpCase file that the table was made of.
const upcaseSum = "41c26bc7a12bdaeb26025c93118697c7e3ef81ee048b00fe5cce2a472e0e0742"

func TestUpcase(t *testing.T) {
	t.Parallel()
	table := make([]byte, 0, 2<<16)
	for u := range 1 << 16 {
		table = append(table, ntfs.AppendUTF16(nil, ntfs.Upcase(ntfs.DecodeUTF16([]byte{byte(u), byte(u >> 8)})))...)
	}
	if sum := sha256.Sum256(table); hex.EncodeToString(sum[:]) != upcaseSum {
		t.Errorf("the table's sum is %x", sum)
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{{"Straße", "STRASSE", false}, {"é", "É", true}, {"𐐨", "𐐀", false}, {"System32", "SYSTEM32", true}, {"ÿ", "Ÿ", true}} {
		if ntfs.EqualFold(c.a, c.b) != c.want {
			t.Errorf("%s and %s: want %v", c.a, c.b, c.want)
		}
	}
}

func TestFileTime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		time time.Time
		want ntfs.FileTime
	}{
		{time.Time{}, 0},
		{time.Unix(0, 0), 116444736000000000},
		{time.Unix(0, 199), 116444736000000001},
		{time.Unix(0, -1), 116444735999999999},
		{time.Unix(-11644473600, 0), 0},
		{time.Unix(-11644473601, 0), -10000000},
		{time.Date(40000, 1, 1, 0, 0, 0, 0, time.UTC), math.MaxInt64},
		{time.Date(-40000, 1, 1, 0, 0, 0, 0, time.UTC), math.MinInt64},
	} {
		if got := ntfs.FromTime(c.time); got != c.want {
			t.Errorf("%v: got %d, want %d", c.time, got, c.want)
		}
	}
	for _, f := range []ntfs.FileTime{1, -1, -10000001, 116444736000000001, 0x00AC4663BED0AE15, math.MaxInt64 / 2} {
		if got := ntfs.FromTime(f.Time()); got != f {
			t.Errorf("%d came back as %d", f, got)
		}
	}
}

func TestBasicInfo(t *testing.T) {
	t.Parallel()
	want := ntfs.BasicInfo{Creation: 1, LastAccess: 2, LastWrite: 3, Change: 4, Attributes: ntfs.AttrReadonly | ntfs.AttrDirectory}
	b := want.Append(nil)
	if got, err := ntfs.ParseBasicInfo(b); err != nil || got != want || len(b) != ntfs.BasicInfoSize {
		t.Error(got, err)
	}
	if _, err := ntfs.ParseBasicInfo(b[:39]); !errors.Is(err, ntfs.ErrFormat) {
		t.Error(err)
	}
	if got := (want.Attributes | 0x80000000).String(); got != "readonly|directory|0x80000000" {
		t.Error(got)
	}
}

func TestEA(t *testing.T) {
	t.Parallel()
	eas := []ntfs.EA{{Name: "Z", Value: []byte("1")}, {Name: "A", Flags: 0x80, Value: []byte("22")}}
	const want = "0c00000000010100" + "5a003100" + "0000000080010200" + "41003232"
	b, err := ntfs.AppendEA(nil, eas)
	if err != nil || hex.EncodeToString(b) != want {
		t.Fatalf("got %x, %v", b, err)
	}
	if got, err := ntfs.ParseEA(b); err != nil || !reflect.DeepEqual(got, eas) {
		t.Error(got, err)
	}
	b[12] = 12 // as ntfs-3g has it
	if got, err := ntfs.ParseEA(b); err != nil || !reflect.DeepEqual(got, eas) {
		t.Error(got, err)
	}
	for _, bad := range []string{"00", "0000000000000000", "0400000000010000" + "5a00", "ff00000000010000" + "5a00", "0000000000010500" + "5a00", "0000000000010000" + "5a5a"} {
		b, _ := hex.DecodeString(bad)
		if _, err := ntfs.ParseEA(b); !errors.Is(err, ntfs.ErrFormat) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := ntfs.AppendEA(nil, []ntfs.EA{{Name: strings.Repeat("x", 256)}}); !errors.Is(err, ntfs.ErrRange) {
		t.Error(err)
	}
}

func TestLinks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		tag                ntfs.ReparseTag
		target, substitute string
		flags              uint32
	}{
		{ntfs.TagSymlink, `C:\Windows`, `\??\C:\Windows`, 0},
		{ntfs.TagSymlink, `..\a`, `..\a`, ntfs.SymlinkRelative},
		{ntfs.TagSymlink, `\a`, `\a`, ntfs.SymlinkRelative},
		{ntfs.TagSymlink, `\\srv\share`, `\??\UNC\srv\share`, 0},
		{ntfs.TagMountPoint, `\\?\Volume{x}\`, `\??\Volume{x}\`, 0},
		{ntfs.TagMountPoint, `C:\d`, `\??\C:\d`, 0},
	} {
		l := ntfs.NewLink(c.tag, c.target)
		if l.SubstituteName != c.substitute || l.Flags != c.flags {
			t.Errorf("%s: got %+v", c.target, l)
		}
		b, err := l.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ntfs.ParseLink(b); err != nil || got != l {
			t.Errorf("got %+v, %v, want %+v", got, err, l)
		}
		l.PrintName = ""
		if l.Target() != c.target {
			t.Errorf("without a print name: %s, want %s", l.Target(), c.target)
		}
	}
	b, err := ntfs.NewLink(ntfs.TagMountPoint, `C:`).Append(nil)
	const want = "030000a01c000000" + "00000c000e000400" + "5c003f003f005c0043003a000000" + "43003a000000"
	if hex.EncodeToString(b) != want || err != nil {
		t.Errorf("got %x, %v", b, err)
	}
}

// TestWCI has the reparse point of kernel32.dll on a container's scratch volume.
func TestWCI(t *testing.T) {
	t.Parallel()
	layer, err := ntfs.ParseGUID("{8264f677-40b0-4ca5-bf9a-944ac2da8087}")
	if err != nil || layer.String() != "8264f677-40b0-4ca5-bf9a-944ac2da8087" {
		t.Fatal(layer, err)
	}
	want := ntfs.WCI{Version: 1, Layer: layer, Path: `Windows\System32\kernel32.dll`}
	p, err := want.Reparse(ntfs.TagWCI1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Append(nil)
	if err != nil || len(b) != 92 || !strings.HasPrefix(hex.EncodeToString(b), "1810009054000000"+"0100000000000000"+"77f66482b040a54cbf9a944ac2da8087"+"3a00"+"5700") {
		t.Fatalf("got %x, %v", b, err)
	}
	if p, err = ntfs.ParseReparse(b); err != nil {
		t.Fatal(err)
	}
	if got, err := ntfs.ParseWCI(p); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", ".", "..", "a:b", "a\x00", "a/b", `a\b`, "a\x1f", "\xff", "\xed\xa0\x80\xed\xb0\x80", strings.Repeat("x", 256), strings.Repeat("𐐀", 128)} {
		if err := ntfs.CheckName(bad); !errors.Is(err, ntfs.ErrRange) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{"a", "é", "\xed\xa0\x80", "con", "a.", strings.Repeat("é", 255)} {
		if err := ntfs.CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for name, want := range map[string]bool{"con": true, "NUL.txt": true, "com1 .x": true, "LPT³": true, "com0": false, "console": false, "com10": false} {
		if ntfs.IsReserved(name) != want {
			t.Errorf("%s: want %v", name, want)
		}
	}
}

func FuzzUTF16(f *testing.F) {
	f.Add([]byte{0x3d, 0xd8, 0x00, 0xde, 0x3d, 0xd8, 'a', 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:len(b)&^1]
		s := ntfs.DecodeUTF16(b)
		if !ntfs.ValidWTF8(s) || !bytes.Equal(ntfs.AppendUTF16(nil, s), b) {
			t.Fatalf("%x became %q", b, s)
		}
		units := make([]uint16, len(b)/2)
		for i := range units {
			units[i] = uint16(b[2*i]) | uint16(b[2*i+1])<<8
		}
		if want := string(utf16.Decode(units)); !strings.ContainsRune(want, '\uFFFD') && s != want {
			t.Fatalf("got %q, want %q", s, want)
		}
		if up := ntfs.Upcase(s); len(ntfs.AppendUTF16(nil, up)) != len(b) {
			t.Fatalf("%q became %q", s, up)
		}
	})
}

func FuzzEA(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x01\x01\x00A\x00v\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		eas, err := ntfs.ParseEA(b)
		if err != nil {
			return
		}
		out, err := ntfs.AppendEA(nil, eas)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ntfs.ParseEA(out); err != nil || !reflect.DeepEqual(again, eas) {
			t.Fatalf("%v became %v, %v", eas, again, err)
		}
	})
}

func FuzzReparse(f *testing.F) {
	b, err := ntfs.NewLink(ntfs.TagSymlink, `C:\x`).Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ntfs.ParseReparse(b)
		if err != nil {
			return
		}
		if got, err := p.Append(nil); err == nil && !bytes.Equal(got, b) {
			t.Fatalf("%x became %x", b, got)
		}
		if l, err := ntfs.ParseLink(b); err == nil {
			out, err := l.Append(nil)
			if err != nil {
				return
			}
			if again, err := ntfs.ParseLink(out); err != nil || again != l {
				t.Fatalf("%+v became %+v, %v", l, again, err)
			}
		}
	})
}

// FuzzReparseData reads the data of every tag that has a decoder of its own. What can be encoded again is the same.
func FuzzReparseData(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00/etc"))
	f.Add([]byte("\x01\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00"))
	f.Add(append([]byte("\x01\x00\x00\x00\x01\x00\x00\x00"), make([]byte, 36)...))
	w, err := ntfs.WCI{Version: 1, Layer: ntfs.GUID{1, 2, 3}, Path: `Windows\x`}.Reparse(ntfs.TagWCI1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(w.Data)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, tag := range []ntfs.ReparseTag{ntfs.TagWCI, ntfs.TagWCI1, ntfs.TagWCILink, ntfs.TagWCILink1} {
			w, err := ntfs.ParseWCI(ntfs.Reparse{Tag: tag, Data: data})
			if err != nil {
				continue
			}
			if again, err := w.Reparse(tag); err != nil || again.Tag != tag || !bytes.Equal(again.Data, data) {
				t.Fatalf("%x became %+v and %x, %v", data, w, again.Data, err)
			}
		}
		if target, err := ntfs.ParseLXSymlink(ntfs.Reparse{Tag: ntfs.TagLXSymlink, Data: data}); err == nil {
			if again := ntfs.NewLXSymlink(target); !bytes.Equal(again.Data, data) {
				t.Fatalf("%x became %q and %x", data, target, again.Data)
			}
		}
		if w, err := ntfs.ParseWOF(ntfs.Reparse{Tag: ntfs.TagWOF, Data: data}); err == nil && w.Provider != ntfs.WOFProviderWIM && w.Provider != ntfs.WOFProviderFile {
			t.Fatalf("%x became %+v", data, w)
		}
		if names, err := ntfs.ParseAppExecLink(ntfs.Reparse{Tag: ntfs.TagAppExecLink, Data: data}); err == nil && len(names) == 0 {
			t.Fatalf("%x has no names", data)
		}
	})
}

// FuzzGUID reads GUIDs as text: what is one is printed as it was, but for braces and case.
func FuzzGUID(f *testing.F) {
	f.Add("{8264F677-40b0-4ca5-bf9a-944ac2da8087}")
	f.Add("8264f677-40b0-4ca5-bf9a-944ac2da808")
	f.Fuzz(func(t *testing.T, text string) {
		g, err := ntfs.ParseGUID(text)
		if err != nil {
			return
		}
		if got, want := g.String(), strings.ToLower(strings.Trim(text, "{}")); got != want {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

func FuzzBasicInfo(f *testing.F) {
	f.Add(ntfs.BasicInfo{Creation: 1, LastWrite: 2, Attributes: ntfs.AttrHidden}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := ntfs.ParseBasicInfo(b)
		if err != nil {
			return
		}
		out := i.Append(nil)
		if !bytes.Equal(out[:36], b[:36]) || len(out) != len(b) {
			t.Fatalf("%x became %x", b, out)
		}
		// Windows stores nothing below 0, and in the last second there is no number that differs from the last.
		if at := i.Creation.Time(); i.Creation > 0 && i.Creation < math.MaxInt64-2e7 && ntfs.FromTime(at) != i.Creation {
			t.Fatalf("%d became %v", i.Creation, at)
		}
	})
}

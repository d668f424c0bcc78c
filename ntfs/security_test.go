package ntfs_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"testing"

	"github.com/hostcompute/hcs/ntfs"
)

// What the builders of Windows images on Linux write into rawsd records.
var rawSDs = []struct{ name, base64, sddl string }{
	{
		"BuildKit directory",
		"AQAEgBQAAAAkAAAAAAAAADAAAAABAgAAAAAABSAAAAAgAgAAAQEAAAAAAAUSAAAAAgCoAAcAAAAAAxgA/wEfAAECAAAAAAAFIAAAACACAAAAAxQA/wEfAAEBAAAAAAAFEgAAAAAAGAD/AR8AAQIAAAAAAAUgAAAAIAIAAAALFAAAAAAQAQEAAAAAAAMAAAAAAAMYAKkAEgABAgAAAAAABSAAAAAhAgAAAAIYAAQAAAABAgAAAAAABSAAAAAhAgAAAAIYAAIAAAABAgAAAAAABSAAAAAhAgAA",
		"O:BAG:SYD:(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)(A;;FA;;;BA)(A;OICIIO;GA;;;CO)(A;OICI;0x1200a9;;;BU)(A;CI;LC;;;BU)(A;CI;DC;;;BU)",
	},
	{
		"BuildKit file",
		"AQAEgBQAAAAkAAAAAAAAADAAAAABAgAAAAAABSAAAAAgAgAAAQEAAAAAAAUSAAAAAgBMAAMAAAAAABgA/wEfAAECAAAAAAAFIAAAACACAAAAABQA/wEfAAEBAAAAAAAFEgAAAAAAGACpABIAAQIAAAAAAAUgAAAAIQIAAA==",
		"O:BAG:SYD:(A;;FA;;;BA)(A;;FA;;;SY)(A;;0x1200a9;;;BU)",
	},
	{"crane", "AQAAgBQAAAAkAAAAAAAAAAAAAAABAgAAAAAABSAAAAAhAgAAAQIAAAAAAAUgAAAAIQIAAA==", "O:BUG:BU"},
}

func TestRawSDs(t *testing.T) {
	t.Parallel()
	for _, c := range rawSDs {
		raw, err := base64.StdEncoding.DecodeString(c.base64)
		if err != nil {
			t.Fatal(err)
		}
		d, err := ntfs.ParseSecurityDescriptor(raw)
		if err != nil {
			t.Fatal(c.name, err)
		}
		if got, err := d.SDDL(); err != nil || got != c.sddl {
			t.Errorf("%s: got %s, %v", c.name, got, err)
		}
		if d, err = ntfs.ParseSDDL(c.sddl); err != nil {
			t.Fatal(c.name, err)
		}
		if got, err := d.Append(nil); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%s: got %x, %v, want %x", c.name, got, err, raw)
		}
	}
}

// TestSDDL reads text, encodes it, and prints what it decodes from that.
func TestSDDL(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"",
		"D:",
		"D:NO_ACCESS_CONTROL",
		"D:PNO_ACCESS_CONTROL",
		"O:SYG:SYD:PARAI(A;OICINPIOID;GA;;;WD)S:PARAI(AU;SAFA;FA;;;WD)",
		"D:(A;;CCDCLCSWRPWPDTLOCRSDRCWDWO;;;SY)(D;;GXGWGR;;;AN)(A;;KA;;;BA)(A;;KR;;;BU)(A;;FR;;;BU)(A;;FW;;;BU)(A;;FX;;;BU)",
		"D:(OA;CI;RPWP;bf967aba-0de6-11d0-a285-00aa003049e2;;AU)(OD;;CR;;bf967aba-0de6-11d0-a285-00aa003049e2;PS)",
		"S:(OU;SA;WP;bf967aba-0de6-11d0-a285-00aa003049e2;bf967aba-0de6-11d0-a285-00aa003049e2;WD)(OL;;WP;;;WD)(AL;;FA;;;WD)",
		`D:(ZA;;RP;bf967aba-0de6-11d0-a285-00aa003049e2;;AU;(@User.x == 1))(ZD;;RP;;;AU;(x == 0x10))S:(ZU;SA;RP;;;AU;(x == 010))(ZL;;RP;;;AU;(x == -5))(XL;;RP;;;AU;(x == +5))`,
		`D:(XA;;FX;;;WD;((@User.Title == "PM") && ((@User.Division == "Finance") || (@User.Division == "Sales"))))`,
		`D:(XD;;FX;;;WD;((Exists @Resource.Color) && (!(Member_of {SID(BA), SID(S-1-5-21-1-2-3)}))))`,
		`D:(XA;;FX;;;WD;(Not_Device_Member_of_Any {SID(BA)}))(XA;;FX;;;WD;(a Any_of {#0aff, "b", 3}))(XA;;FX;;;WD;(@Device.a%0020b Not_Contains @User.c))`,
		`S:(XU;SAFA;FX;;;WD;(Level >= 3))(ML;;NWNRNX;;;LW)(RA;CI;;;;WD;("Project",TS,0x1,"Windows","SQL"))(SP;;;;;S-1-17-1-2-3-4)(TL;;CCDCLCSWRPRC;;;S-1-19-512-8192)(FL;TP;FA;;;WD;(x < 2))`,
		`S:(RA;;;;;WD;("a",TI,0x0,-1,5))(RA;;;;;WD;("b",TU,0x0,18446744073709551615))(RA;;;;;WD;("c",TB,0x0,1,0))(RA;;;;;WD;("d",TX,0x0,#01ff))(RA;;;;;WD;("e",TD,0x0,BA,SY))`,
		"O:S-1-5-93-2-1G:S-1-15-3-1024-1-2-3-4-5-6-7-8D:(A;;FA;;;S-1-0x123456789abc-1)(A;;FA;;;AC)",
		"O:S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464D:AI(A;ID;FA;;;S-1-15-2-1-2)",
	} {
		d, err := ntfs.ParseSDDL(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		raw, err := d.Append(nil)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if d, err = ntfs.ParseSecurityDescriptor(raw); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := d.SDDL(); err != nil || got != text {
			t.Errorf("got  %s, %v\nwant %s", got, err, text)
		}
	}
}

func TestDomain(t *testing.T) {
	t.Parallel()
	const text = "O:DAG:DUD:(A;;FA;;;LA)"
	if _, err := ntfs.ParseSDDL(text); !errors.Is(err, ntfs.ErrSyntax) {
		t.Errorf("without a domain: %v", err)
	}
	domain := ntfs.Domain{SID: ntfs.NewSID(5, 21, 1, 2, 3)}
	d, err := domain.ParseSDDL(text)
	if err != nil || d.Owner.String() != "S-1-5-21-1-2-3-512" {
		t.Fatal(d, err)
	}
	if got, err := domain.SDDL(d); err != nil || got != text {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestBadSDDL(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"X:BA", "O:", "O:BAO:BA", "O:S-1-5-", "O:S-1-281474976710656-1", "O:S-1-5-4294967296", "D:(", "D:(A)", "D:(A;;FA;;;BA",
		"D:(Q;;FA;;;BA)", "D:(A;XX;FA;;;BA)", "D:(A;;FAX;;;BA)", "D:(A;;0x100000000;;;BA)", "D:(A;;FA;bad;;BA)",
		"D:(A;;FA;bf967aba-0de6-11d0-a285-00aa003049e2;;BA)", "D:(A;;FA;;;BA;(x == 1))", "D:(XA;;FA;;;BA;(x))",
		"D:(XA;;FA;;;BA;(x == ))", `D:(XA;;FA;;;BA;(x == "a))`, `S:(RA;;;;;WD;("a",TQ,0,1))`, `S:(RA;;;;;WD;("a",TB,0,2))`,
		"O:S-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1",
	} {
		if d, err := ntfs.ParseSDDL(text); !errors.Is(err, ntfs.ErrSyntax) {
			t.Errorf("%s: got %v, %v", text, d, err)
		}
	}
}

// TestOrderOfParts: NTFS itself puts the DACL first; the bytes come back until something is changed.
func TestOrderOfParts(t *testing.T) {
	t.Parallel()
	raw := []byte{1, 0, 4, 0x80, 28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 2, 0, 8, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0}
	d, err := ntfs.ParseSecurityDescriptor(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.Append(nil); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("unchanged: %x, %v", got, err)
	}
	d.Group = ntfs.NewSID(5, 18)
	got, err := d.Append(nil)
	if err != nil || bytes.Equal(got, raw) {
		t.Fatal(got, err)
	}
	if d, err = ntfs.ParseSecurityDescriptor(got); err != nil {
		t.Fatal(err)
	}
	if text, err := d.SDDL(); err != nil || text != "O:SYG:SYD:" {
		t.Error(text, err)
	}
}

func TestBadSecurityDescriptors(t *testing.T) {
	t.Parallel()
	good := func() []byte {
		b, err := base64.StdEncoding.DecodeString(rawSDs[1].base64)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, change := range map[string]func(b []byte) []byte{
		"short":              func(b []byte) []byte { return b[:19] },
		"revision":           func(b []byte) []byte { b[0] = 2; return b },
		"absolute":           func(b []byte) []byte { b[3] = 0; return b },
		"owner in header":    func(b []byte) []byte { b[4] = 4; return b },
		"owner outside":      func(b []byte) []byte { b[7] = 0x80; return b },
		"owner and group":    func(b []byte) []byte { b[8] = b[4]; return b },
		"ACL over the owner": func(b []byte) []byte { b[16] = b[4]; return b },
		"cut":                func(b []byte) []byte { return b[:len(b)-1] },
		"ACL size":           func(b []byte) []byte { b[0x32]++; return b },
		"ACE count":          func(b []byte) []byte { b[0x34] = 0xFF; return b },
		"ACE size":           func(b []byte) []byte { b[0x3A] = 4; return b },
		"SID count":          func(b []byte) []byte { b[0x41] = 16; return b },
	} {
		if d, err := ntfs.ParseSecurityDescriptor(change(good())); !errors.Is(err, ntfs.ErrFormat) {
			t.Errorf("%s: got %v, %v", name, d, err)
		}
	}
}

func TestInheritance(t *testing.T) {
	t.Parallel()
	const parent = "O:SYG:SYD:(A;OICI;FA;;;SY)(A;OICIIO;GA;;;CO)(A;CI;LC;;;BU)(A;OI;FR;;;BU)(A;OICINP;GR;;;AU)(A;;FA;;;BA)"
	for _, c := range []struct {
		name, creator, want string
		kind                ntfs.Kind
	}{
		{"file", "", "O:BAG:SYD:AI(A;ID;FA;;;SY)(A;ID;FA;;;BA)(A;ID;FR;;;BU)(A;ID;FR;;;AU)", ntfs.Leaf},
		{"directory", "", "O:BAG:SYD:AI(A;OICIID;FA;;;SY)(A;ID;FA;;;BA)(A;OICIIOID;GA;;;CO)(A;CIID;LC;;;BU)(A;OIIOID;FR;;;BU)(A;ID;FR;;;AU)", ntfs.Container},
		{"explicit", "O:BUD:(D;;GW;;;WD)", "O:BUG:SYD:AI(D;;FW;;;WD)(A;ID;FA;;;SY)(A;ID;FA;;;BU)(A;ID;FR;;;BU)(A;ID;FR;;;AU)", ntfs.Leaf},
		{"protected", "D:P(A;;FA;;;BA)", "O:BAG:SYD:P(A;;FA;;;BA)", ntfs.Leaf},
		{"null", "D:NO_ACCESS_CONTROL", "O:BAG:SYD:AINO_ACCESS_CONTROL", ntfs.Leaf},
	} {
		p, err := ntfs.ParseSDDL(parent)
		if err != nil {
			t.Fatal(err)
		}
		creator, err := ntfs.ParseSDDL(c.creator)
		if err != nil {
			t.Fatal(err)
		}
		i := ntfs.Inheritance{Parent: p, Creator: creator, Owner: ntfs.NewSID(5, 32, 544), Group: ntfs.NewSID(5, 18)}
		if got, err := i.For(c.kind).SDDL(); err != nil || got != c.want {
			t.Errorf("%s: got  %s, %v\nwant %s", c.name, got, err, c.want)
		}
	}
}

func FuzzSecurityDescriptor(f *testing.F) {
	for _, c := range rawSDs {
		raw, err := base64.StdEncoding.DecodeString(c.base64)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ntfs.ParseSecurityDescriptor(b)
		if err != nil {
			return
		}
		if got, err := d.Append(nil); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%x: got %x, %v", b, got, err)
		}
		text, err := d.SDDL()
		if err != nil {
			return
		}
		fromText(t, text)
		ntfs.Inheritance{Parent: d}.For(ntfs.Container)
	})
}

// FuzzSID reads SIDs as bytes and as text: each form makes the same of the other.
func FuzzSID(f *testing.F) {
	f.Add([]byte("\x01\x02\x00\x00\x00\x00\x00\x05\x20\x00\x00\x00\x20\x02\x00\x00"), "S-1-5-32-544")
	f.Add([]byte("\x01\x00\x00\x01\x00\x00\x00\x05"), "s-1-0x100000005")
	f.Fuzz(func(t *testing.T, b []byte, text string) {
		if sid, err := ntfs.DecodeSID(b); err == nil {
			if out := sid.Append(nil); !bytes.HasPrefix(b, out) || len(out) != sid.Len() {
				t.Fatalf("%x became %x", b, out)
			}
			sameSID(t, sid)
		}
		if sid, err := ntfs.ParseSID(text); err == nil {
			if again, err := ntfs.DecodeSID(sid.Append(nil)); err != nil || again != sid {
				t.Fatalf("%q became %v, %v", text, again, err)
			}
			sameSID(t, sid)
		}
	})
}

func sameSID(t *testing.T, sid ntfs.SID) {
	t.Helper()
	if again, err := ntfs.ParseSID(sid.String()); err != nil || again != sid {
		t.Fatalf("%v became %v, %v", sid, again, err)
	}
}

func FuzzSDDL(f *testing.F) {
	f.Add(`O:BAG:SYD:PAI(XA;OICI;FX;;;WD;((@User.Title == "PM") && (!(Member_of {SID(BA)}))))S:(RA;;;;;WD;("a",TS,0,"b"))(ML;;NW;;;LW)`)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ntfs.ParseSDDL(text)
		if err != nil {
			return
		}
		if text, err = d.SDDL(); err == nil {
			fromText(t, text)
		}
	})
}

// fromText reads printed text: it is what is printed of that again.
func fromText(t *testing.T, text string) {
	t.Helper()
	d, err := ntfs.ParseSDDL(text)
	if err != nil {
		if len(text) > 1<<12 {
			return // a limit of depth or size
		}
		t.Fatalf("%q: %v", text, err)
	}
	if again, err := d.SDDL(); err != nil || again != text {
		t.Fatalf("%q became %q, %v", text, again, err)
	}
}

func BenchmarkParseSecurityDescriptor(b *testing.B) {
	raw, err := base64.StdEncoding.DecodeString(rawSDs[0].base64)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ntfs.ParseSecurityDescriptor(raw); err != nil {
			b.Fatal(err)
		}
	}
}

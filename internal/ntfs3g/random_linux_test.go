package ntfs3g_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/internal/ntfs3g"
	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
)

// randomVolume makes the content of a volume: what NTFS can hold, often at the edge of it.
type randomVolume struct {
	*rand.Rand
	t     testing.TB
	list  []object
	dirs  []string
	files []string
	names map[string]bool // upper case
	sds   [][]byte
}

func newRandomVolume(t testing.TB, seed uint64, n int) []object {
	v := &randomVolume{Rand: rand.New(rand.NewPCG(seed, 4)), t: t, dirs: []string{""}, names: map[string]bool{}}
	for _, sddl := range []string{
		"O:BAG:SYD:(A;OICI;FA;;;BA)(A;;0x1200a9;;;BU)", "O:SYG:SY", "O:BAG:BAD:P", "O:BAG:SYD:NO_ACCESS_CONTROL",
		"O:S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464G:BAD:PAI(D;;WD;;;AN)(A;OICIIO;GA;;;CO)S:(AU;SAFA;FA;;;WD)",
		"O:S-1-5-93-2-1G:S-1-5-93-2-2D:AI(A;ID;FA;;;S-1-15-2-1)S:(ML;;NW;;;HI)",
		"O:BAG:BAD:" + strings.Repeat("(A;OICI;0x1301bf;;;S-1-5-21-1-2-3-1001)", 100),
	} {
		v.sds = append(v.sds, descriptor(t, sddl))
	}
	v.add(".", layer.Dir, ntfs.AttrDirectory|ntfs.AttrHidden|ntfs.AttrSystem)
	for len(v.list) < n {
		v.object()
	}
	return v.list
}

func (v *randomVolume) object() {
	parent := v.dirs[v.IntN(len(v.dirs))]
	name := path.Join(parent, v.name())
	key := ntfs.Upcase(name)
	if v.names[key] || strings.Count(name, "/") > 12 {
		return
	}
	v.names[key] = true
	switch v.IntN(10) {
	case 0, 1:
		v.add(name, layer.Dir, ntfs.AttrDirectory|v.attributes()|v.sometimes(ntfs.AttrCompressed))
		v.dirs = append(v.dirs, name)
	case 2, 3:
		v.reparse(name)
	case 4:
		if len(v.files) > 0 {
			target := v.files[v.IntN(len(v.files))]
			v.list = append(v.list, object{layer.Entry{Name: name, Kind: layer.Hardlink, Link: target}, ""})
		}
	default:
		v.file(name)
	}
}

func (v *randomVolume) sometimes(a ntfs.Attributes) ntfs.Attributes {
	if v.IntN(4) == 0 {
		return a
	}
	return 0
}

func (v *randomVolume) attributes() (a ntfs.Attributes) {
	for _, bit := range []ntfs.Attributes{
		ntfs.AttrReadonly, ntfs.AttrHidden, ntfs.AttrSystem, ntfs.AttrArchive, ntfs.AttrTemporary, ntfs.AttrOffline, ntfs.AttrNotIndexed,
	} {
		a |= v.sometimes(bit)
	}
	return a
}

// name picks the case of letters at random, too, and sometimes all 255 units of UTF-16.
func (v *randomVolume) name() string {
	pieces := []string{
		"a", "B", "x y", "file.txt", "ÄöÜ", "名前", "𝔘𝕟𝕚", "\u0301", "ß", "İı", "CON", "aux.c", "dot.", "space ", ".hidden", "a,b;c=[d]",
		"\xed\xa0\x80", "'", "%20", "~1", "ﬀ", "\u200b", "$MFT", "~$a",
	}
	var b strings.Builder
	for range 1 + v.IntN(3) {
		b.WriteString(pieces[v.IntN(len(pieces))])
	}
	fmt.Fprint(&b, v.IntN(1000))
	if v.IntN(40) == 0 {
		for ntfs.CheckName(b.String()+"名") == nil {
			b.WriteString("名")
		}
	}
	return b.String()
}

// time is any that Windows has, most of them of this century.
func (v *randomVolume) time() time.Time {
	if v.IntN(10) == 0 {
		return ntfs.FileTime(1 + v.Int64N(1<<62)).Time()
	}
	return ntfs.FileTime(125e15 + v.Int64N(1e16)).Time()
}

func (v *randomVolume) add(name string, kind layer.Kind, attributes ntfs.Attributes) *object {
	o := object{Entry: layer.Entry{
		Name: name, Kind: kind, ModTime: v.time(), AccessTime: v.time(), ChangeTime: v.time(),
		NT: &ntfs.Meta{Attributes: attributes, CreationTime: v.time(), SecurityDescriptor: v.sds[v.IntN(len(v.sds))]},
	}}
	if v.IntN(8) == 0 && name != "." {
		o.NT.ObjectID = make([]byte, 64)
		for i := range o.NT.ObjectID {
			o.NT.ObjectID[i] = byte(v.Uint32())
		}
	}
	if v.IntN(6) == 0 && kind != layer.Symlink && name != "." {
		o.NT.EA = v.eas()
	}
	v.list = append(v.list, o)
	at := len(v.list) - 1
	if v.IntN(5) == 0 && name != "." && kind != layer.Symlink {
		v.streams(name)
	}
	return &v.list[at]
}

func (v *randomVolume) eas() (eas []ntfs.EA) {
	for i := range 1 + v.IntN(4) {
		eas = append(eas, ntfs.EA{
			Name: fmt.Sprintf("NAME%d.%s", i, strings.Repeat("X", v.IntN(100))), Flags: byte(v.IntN(2)) << 7,
			Value: []byte(v.content(1 + v.IntN(2000))),
		})
	}
	return eas
}

func (v *randomVolume) streams(name string) {
	for i, stream := range []string{"Zone.Identifier", "名" + strings.Repeat("s", v.IntN(200)), "a b"}[:1+v.IntN(3)] {
		content := v.content(v.IntN(2) * v.IntN(3000<<(3*i)))
		v.list = append(v.list, object{layer.Entry{Name: name, Kind: layer.Stream, Stream: stream, Size: int64(len(content)), NT: &ntfs.Meta{}}, content})
	}
}

func (v *randomVolume) content(n int) string {
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], v.Uint64())
		copy(b[i:], word[:])
	}
	return string(b)
}

// file makes one with content that lies in its record, in a cluster, or in several, with holes sometimes.
func (v *randomVolume) file(name string) {
	o := v.add(name, layer.File, v.attributes())
	switch v.IntN(12) {
	case 0: // and if it is the system's, it looks like a FIFO of Interix
	case 3: // and so a socket
		o.content, o.NT.Attributes = "x", o.NT.Attributes|ntfs.AttrSystem
	case 1:
		o.content = v.content(1+v.IntN(100)) + strings.Repeat("\x00", (1+v.IntN(4))<<20) + v.content(v.IntN(100_000))
		o.NT.Attributes |= ntfs.AttrSparse
	case 2:
		o.content = strings.Repeat("\x00", (1+v.IntN(4))<<20)
		o.NT.Attributes |= ntfs.AttrSparse
	default:
		o.content = v.content(v.IntN(600 << v.IntN(8)))
	}
	o.Size = int64(len(o.content))
	v.files = append(v.files, name)
}

// reparse makes points of all tags that layers and volumes have, and of unknown ones.
func (v *randomVolume) reparse(name string) {
	attributes := ntfs.AttrReparse | v.attributes() | v.sometimes(ntfs.AttrDirectory)
	tags := []ntfs.ReparseTag{
		ntfs.TagWOF, ntfs.TagWCI, ntfs.TagWCI1, ntfs.TagWCILink1, ntfs.TagWCITombstone, ntfs.TagLXSymlink, ntfs.TagLXFIFO, ntfs.TagAFUnix,
		ntfs.TagLXBlockDevice,
		ntfs.TagAppExecLink, ntfs.TagCloud, 0x80001234, 0xA0005678, 0x00000042,
	}
	var b []byte
	var err error
	switch v.IntN(3) {
	case 0:
		attributes |= ntfs.AttrDirectory
		b, err = ntfs.NewLink(ntfs.TagMountPoint, []string{`C:\Windows`, `\\?\Volume{01234567-89ab-cdef-0123-456789abcdef}\`}[v.IntN(2)]).Append(nil)
	case 1:
		b, err = ntfs.NewLink(ntfs.TagSymlink, []string{`..\x`, `C:\名\𝔘`, `\rooted`, `\\server\share`}[v.IntN(4)]).Append(nil)
	default:
		r := ntfs.Reparse{Tag: tags[v.IntN(len(tags))], Data: []byte(v.content(v.IntN(3000)))}
		switch r.Tag {
		case ntfs.TagLXSymlink:
			r.Data = append([]byte{2, 0, 0, 0}, "/target/of/it"...)
		case ntfs.TagWCITombstone, ntfs.TagLXFIFO, ntfs.TagAFUnix, ntfs.TagLXBlockDevice:
			r.Data = nil
		}
		if isSpecial(binary.LittleEndian.AppendUint32(nil, uint32(r.Tag))) {
			attributes &^= ntfs.AttrDirectory
		}
		copy(r.GUID[:], v.content(16))
		b, err = r.Append(nil)
	}
	must(v.t, err)
	v.add(name, layer.Symlink, attributes).NT.Reparse = b
}

func isSpecial(reparse []byte) bool {
	tags := []ntfs.ReparseTag{ntfs.TagLXFIFO, ntfs.TagAFUnix, ntfs.TagLXCharDevice, ntfs.TagLXBlockDevice}
	return len(reparse) >= 4 && slices.Contains(tags, ntfs.ReparseTag(binary.LittleEndian.Uint32(reparse)))
}

// byName puts what a volume has into one text, whatever the order.
func byName(list []object, without func(*object)) string {
	names := map[string]string{}
	groups := map[string][]string{} // names of one file
	for _, o := range list {
		first := o.Name
		if o.Kind == layer.Hardlink {
			first = o.Link
		}
		if o.Kind != layer.Stream {
			groups[first] = append(groups[first], o.Name)
		}
	}
	for _, group := range groups {
		slices.Sort(group)
	}
	for _, o := range list {
		if o.Kind == layer.Hardlink {
			continue
		}
		if o.NT != nil {
			meta := *o.NT
			o.NT = &meta
		}
		without(&o)
		if isSpecial(o.NT.Reparse) { // these have the mode as extended attribute, and are marked as having one
			o.NT.EA, o.NT.Attributes = nil, o.NT.Attributes|ntfs.AttrEA
		}
		if o.NT.Attributes == 0 {
			o.NT.Attributes = ntfs.AttrNormal // as Windows, too, says it
		}
		group := groups[o.Name]
		if o.Kind != layer.Stream {
			o.Name = strings.Join(group, " = ")
		} else {
			o.Name = group[0]
		}
		names[o.Name+":"+o.Stream] = describe([]object{o})
	}
	keys := make([]string, 0, len(names))
	for k := range names {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare[string])
	var b strings.Builder
	for _, k := range keys {
		b.WriteString(names[k])
	}
	return b.String()
}

// large makes an empty volume with room for thousands of objects.
func large(t *testing.T) string {
	path := formatted(t)
	must(t, os.Truncate(path, 512<<20))
	must(t, ntfs3g.Format(t.Context(), path, "", 17<<20))
	return path
}

// TestRandomVolume fills a volume with thousands of objects, and reads them.
func TestRandomVolume(t *testing.T) {
	t.Parallel()
	path := large(t)
	want := newRandomVolume(t, 1, 4000)
	fill(t, path, want)
	everything := func(*object) {}
	if d := gocmp.Diff(byName(want, everything), byName(read(t, path), everything)); d != "" {
		t.Errorf("read (-want +got): %.4000s", d)
	}
}

// TestRandomVolumeWimlib has wimlib read a volume, write what it read to another one, and reads that. Devices and sockets
// are beyond wimlib, which asks ntfs-3g for them in the wrong way.
func TestRandomVolumeWimlib(t *testing.T) {
	t.Parallel()
	wimlib := testenv.NeedCommand(t, "wimlib-imagex")[0]
	path, copied := large(t), large(t)
	want := slices.DeleteFunc(newRandomVolume(t, 2, 3000), func(o object) bool { return o.NT != nil && isSpecial(o.NT.Reparse) })
	fill(t, path, want)
	wim := filepath.Join(t.TempDir(), "volume.wim")
	for _, args := range [][]string{{"capture", path, wim, "--compress=none"}, {"apply", wim, copied}} {
		if out, err := exec.CommandContext(t.Context(), wimlib, args...).CombinedOutput(); err != nil {
			t.Fatalf("wimlib-imagex %s: %v\n%s", args, err, out)
		}
	}
	// A WIM of this version has no extended attributes, and a WIM no change times. In directories that are compressed wimlib
	// compresses what it makes, instead of leaving holes.
	lost := func(o *object) {
		o.NT.EA, o.ChangeTime = nil, time.Time{}
		o.NT.Attributes &^= ntfs.AttrCompressed | ntfs.AttrSparse
	}
	if d := gocmp.Diff(byName(want, lost), byName(read(t, copied), lost)); d != "" {
		t.Errorf("through wimlib (-want +got): %.4000s", d)
	}
}

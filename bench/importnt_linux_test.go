package bench_test

import (
	"archive/tar"
	"bufio"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hostcompute/hcs/internal/testenv"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/rootfs"
)

// The files of the Windows layer, as many as a server's base has.
const (
	windowsFiles  = 60_000
	windowsPerDir = 60
	windowsMean   = 4 << 10 // bytes of a file: small, so that making files counts and not copying
)

// BenchmarkImportNT stores a Windows layer of 60,000 files, with a security descriptor for each, on tmpfs, in turn with GNU
// tar unpacking the same tar there, which drops what it does not know of Windows.
func BenchmarkImportNT(b *testing.B) {
	testenv.NeedRoot(b)
	gnuTar := testenv.NeedCommand(b, "tar")[0]
	dir := loadDir(b, "tmpfs")
	blob := filepath.Join(dir, "layer.tar")
	writeWindowsLayer(b, blob)
	store, tree := filepath.Join(dir, "store"), filepath.Join(dir, "tree")
	ours := runner{
		before: func() { must(b, os.RemoveAll(store)) },
		run:    func() error { return importWindowsLayer(b, store, blob) },
	}
	theirs := runner{
		before: func() {
			must(b, os.RemoveAll(tree))
			must(b, os.Mkdir(tree, 0o755))
		},
		run: func() error {
			return exec.Command(gnuTar, "-x", "-p", "--numeric-owner", "--warning=no-unknown-keyword", "-f", blob, "-C", tree).Run()
		},
	}
	for b.Loop() {
		pairs(b, 9, rest, ours, theirs)
	}
}

func importWindowsLayer(b *testing.B, dir, blob string) error {
	f, err := os.Open(blob)
	if err != nil {
		return err
	}
	defer f.Close()
	r := layer.ReadOptions{Encoding: layer.NT}.NewReader(f)
	stats, err := rootfs.ImportNT(b.Context(), dir, nil, r, rootfs.NTOptions{})
	if err == nil && stats.Entries < windowsFiles {
		err = fmt.Errorf("%d entries are stored", stats.Entries)
	}
	return err
}

// writeWindowsLayer writes a layer as Windows' exporter does.
func writeWindowsLayer(b *testing.B, name string) {
	f, err := os.Create(name)
	must(b, err)
	defer f.Close()
	buffered := bufio.NewWriterSize(f, 1<<20)
	w := tar.NewWriter(buffered)
	l := windowsLayer{w: w, random: rand.New(rand.NewPCG(1, 2)), content: make([]byte, 2*windowsMean)}
	for i := range l.content {
		l.content[i] = byte(l.random.Uint32())
	}
	l.descriptors(b)
	for _, dir := range []string{"Files", "Files/Windows", "Files/Windows/WinSxS", "Hives"} {
		l.dir(b, dir)
	}
	for i := range windowsFiles {
		dir := fmt.Sprintf("Files/Windows/WinSxS/amd64_microsoft-windows-component-%05d_31bf3856ad364e35_10.0.20348.1", i/windowsPerDir)
		if i%windowsPerDir == 0 {
			l.dir(b, dir)
		}
		l.file(b, fmt.Sprintf("%s/Library%02d.dll", dir, i%windowsPerDir))
	}
	must(b, w.Close())
	must(b, buffered.Flush())
}

type windowsLayer struct {
	w        *tar.Writer
	random   *rand.Rand
	content  []byte
	forDirs  string
	forFiles []string
}

// descriptors makes those that files share, as most of Windows' files do.
func (l *windowsLayer) descriptors(b *testing.B) {
	encode := func(sddl string) string {
		d, err := ntfs.ParseSDDL(sddl)
		must(b, err)
		raw, err := d.Append(nil)
		must(b, err)
		return base64.StdEncoding.EncodeToString(raw)
	}
	const installer = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
	l.forDirs = encode("O:" + installer + "G:" + installer + "D:PAI(A;OICIIO;GA;;;" + installer + ")(A;CI;FA;;;" + installer +
		")(A;OICI;0x1301bf;;;SY)(A;OICI;0x1301bf;;;BA)(A;OICI;0x1200a9;;;BU)(A;OICI;0x1200a9;;;AC)")
	for _, who := range []string{"BU", "AC", "AU", "WD"} {
		l.forFiles = append(l.forFiles, encode("O:"+installer+"G:"+installer+"D:PAI(A;;FA;;;"+installer+
			")(A;;0x1200a9;;;SY)(A;;0x1200a9;;;BA)(A;;0x1200a9;;;"+who+")"))
	}
}

func (l *windowsLayer) header(name string, kind byte, attributes, descriptor string) *tar.Header {
	at := time.Unix(1_600_000_000+l.random.Int64N(1e8), 100*l.random.Int64N(1e7))
	return &tar.Header{
		Format: tar.FormatPAX, Name: name, Typeflag: kind, ModTime: at, AccessTime: at.Add(time.Hour), ChangeTime: at.Add(time.Minute),
		PAXRecords: map[string]string{
			"MSWINDOWS.fileattr": attributes, "MSWINDOWS.rawsd": descriptor,
			"LIBARCHIVE.creationtime": fmt.Sprintf("%d.%07d", at.Unix()-1000, at.Nanosecond()/100),
		},
	}
}

func (l *windowsLayer) dir(b *testing.B, name string) {
	must(b, l.w.WriteHeader(l.header(name, tar.TypeDir, "16", l.forDirs)))
}

func (l *windowsLayer) file(b *testing.B, name string) {
	h := l.header(name, tar.TypeReg, "32", l.forFiles[l.random.IntN(len(l.forFiles))])
	h.Size = l.random.Int64N(2 * windowsMean)
	must(b, l.w.WriteHeader(h))
	_, err := l.w.Write(l.content[:h.Size])
	must(b, err)
}

package layertest

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/regf"
)

// WindowsFile is an object of a Windows layer: an entry, and what a file or a stream holds.
type WindowsFile struct {
	layer.Entry
	Content string
}

// Descriptors of the files below, as text.
const (
	WindowsDirSDDL  = "O:SYG:SYD:PAI(A;OICIIO;GA;;;CO)(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;0x1200a9;;;BU)"
	WindowsFileSDDL = "O:SYG:SYD:AI(A;ID;FA;;;SY)(A;ID;FA;;;BA)(A;ID;0x1200a9;;;BU)"
	WindowsOwnSDDL  = "O:BAG:BAD:P(A;;FA;;;BA)"
)

// WindowsTime is when all files below are from, a fraction of a second included.
var WindowsTime = time.Date(2024, 2, 3, 4, 5, 6, 123456700, time.UTC)

func descriptor(sddl string) []byte {
	d, err := ntfs.ParseSDDL(sddl)
	if err == nil {
		var b []byte
		if b, err = d.Append(nil); err == nil {
			return b
		}
	}
	panic(fmt.Sprintf("%s: %v", sddl, err)) // a mistake in a test
}

func windowsObject(kind layer.Kind, name, sddl string, attributes ntfs.Attributes) WindowsFile {
	nt := &ntfs.Meta{Attributes: attributes, CreationTime: WindowsTime.Add(-time.Hour)}
	if sddl != "" {
		nt.SecurityDescriptor = descriptor(sddl)
	}
	return WindowsFile{Entry: layer.Entry{
		Kind: kind, Name: name, ModTime: WindowsTime, AccessTime: WindowsTime.Add(time.Minute),
		ChangeTime: WindowsTime.Add(2 * time.Minute), NT: nt,
	}}
}

// WindowsDir returns a directory.
func WindowsDir(name string) WindowsFile {
	return windowsObject(layer.Dir, name, WindowsDirSDDL, ntfs.AttrDirectory)
}

// WindowsData returns a file.
func WindowsData(name, content string) WindowsFile {
	f := windowsObject(layer.File, name, WindowsFileSDDL, ntfs.AttrArchive)
	f.Size, f.Content = int64(len(content)), content
	return f
}

// WindowsStream returns an alternate stream of the object before it.
func WindowsStream(name, stream, content string) WindowsFile {
	return WindowsFile{
		Entry: layer.Entry{
			Kind: layer.Stream, Name: name, Stream: stream, Size: int64(len(content)), ModTime: WindowsTime, NT: new(ntfs.Meta),
		},
		Content: content,
	}
}

// WindowsHardLink returns another name of a file.
func WindowsHardLink(name, target string) WindowsFile {
	f := windowsObject(layer.Hardlink, name, "", ntfs.AttrArchive)
	f.Link = target
	return f
}

// WindowsLink returns a symbolic link, or a junction, to a directory.
func WindowsLink(name, target string, tag ntfs.ReparseTag) WindowsFile {
	f := windowsObject(layer.Symlink, name, WindowsFileSDDL, ntfs.AttrReparse|ntfs.AttrDirectory)
	reparse, err := ntfs.NewLink(tag, target).Append(nil)
	if err != nil {
		panic(err)
	}
	f.NT.Reparse, f.Link = reparse, target
	return f
}

// WindowsWhiteout removes a name of lower layers.
func WindowsWhiteout(name string) WindowsFile {
	return WindowsFile{Entry: layer.Entry{Kind: layer.Whiteout, Name: name, NT: new(ntfs.Meta)}}
}

// WithDescriptor returns the object with another descriptor.
func (f WindowsFile) WithDescriptor(sddl string) WindowsFile {
	nt := *f.NT
	nt.SecurityDescriptor = descriptor(sddl)
	f.NT = &nt
	return f
}

// WithAttributes returns the object with attributes added.
func (f WindowsFile) WithAttributes(a ntfs.Attributes) WindowsFile {
	nt := *f.NT
	nt.Attributes |= a
	f.NT = &nt
	return f
}

// WindowsTar returns the stream of a layer.
func WindowsTar(files []WindowsFile) ([]byte, error) {
	var buf bytes.Buffer
	w := layer.NewWriter(&buf)
	for _, f := range files {
		e := f.Entry
		if err := w.Write(&e, io.LimitReader(strings.NewReader(f.Content), e.Size)); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// Hive returns a hive with what .reg text says, whose keys begin with root.
func Hive(root, reg string) ([]byte, error) {
	t, err := regf.Minimal(root[strings.LastIndexByte(root, '\\')+1:], regf.FiletimeOf(WindowsTime))
	if err != nil {
		return nil, err
	}
	edits, err := regf.ParseText([]byte("Windows Registry Editor Version 5.00\n\n" + reg))
	if err != nil {
		return nil, err
	}
	if err := t.Apply(root, edits); err != nil {
		return nil, err
	}
	return t.Bytes()
}

// EditHive returns the hive that edits, as .reg text, make of another, and the delta between the two.
func EditHive(hive []byte, root, reg string) (edited, delta []byte, err error) {
	lower, err := regf.Parse(hive)
	if err != nil {
		return nil, nil, err
	}
	t, err := lower.Edit()
	if err != nil {
		return nil, nil, err
	}
	edits, err := regf.ParseText([]byte("Windows Registry Editor Version 5.00\n\n" + reg))
	if err != nil {
		return nil, nil, err
	}
	if err := t.Apply(root, edits); err != nil {
		return nil, nil, err
	}
	if edited, err = t.Bytes(); err != nil {
		return nil, nil, err
	}
	upper, err := regf.Parse(edited)
	if err != nil {
		return nil, nil, err
	}
	d, err := regf.Diff(lower, upper)
	if err != nil {
		return nil, nil, err
	}
	delta, err = d.Bytes()
	return edited, delta, err
}

// WindowsImage is an image of three layers: a base with small hives, an application, and a layer that deletes, renames in
// case alone, puts a junction in a directory's place, changes descriptors and the registry.
type WindowsImage struct {
	Layers [3][]WindowsFile
	// Software is what the SOFTWARE hive is with all layers.
	Software []byte
}

// Tars returns the streams of the layers, base first.
func (i *WindowsImage) Tars() ([][]byte, error) {
	var tars [][]byte
	for n, files := range i.Layers {
		tar, err := WindowsTar(files)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", n, err)
		}
		tars = append(tars, tar)
	}
	return tars, nil
}

const softwareKey = `HKEY_LOCAL_MACHINE\SOFTWARE`

// NewWindowsImage makes the image.
func NewWindowsImage() (*WindowsImage, error) {
	software, err := Hive(softwareKey, `[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows NT\CurrentVersion]
"ProductName"="Windows Server"
"CurrentBuild"="20348"

[HKEY_LOCAL_MACHINE\SOFTWARE\Old\Vendor]
"Gone"=dword:00000001
`)
	if err != nil {
		return nil, err
	}
	withApp, appDelta, err := EditHive(software, softwareKey, `[HKEY_LOCAL_MACHINE\SOFTWARE\App]
"Path"="C:\\app"
"Version"=dword:00000001
`)
	if err != nil {
		return nil, err
	}
	final, topDelta, err := EditHive(withApp, softwareKey, `[HKEY_LOCAL_MACHINE\SOFTWARE\App]
"Version"=dword:00000002

[-HKEY_LOCAL_MACHINE\SOFTWARE\Old]
`)
	if err != nil {
		return nil, err
	}
	base, err := windowsBase(software)
	if err != nil {
		return nil, err
	}
	return &WindowsImage{Layers: [3][]WindowsFile{base, windowsApp(appDelta), windowsTop(topDelta)}, Software: final}, nil
}

func windowsBase(software []byte) ([]WindowsFile, error) {
	config := "Files/Windows/System32/config"
	files := []WindowsFile{
		WindowsDir("Files"),
		WindowsLink("Files/Documents and Settings", `C:\Users`, ntfs.TagMountPoint).WithAttributes(ntfs.AttrHidden | ntfs.AttrSystem),
		WindowsDir("Files/Users"), WindowsDir("Files/Users/Public"),
		WindowsDir("Files/Windows"),
		WindowsData("Files/Windows/win.ini", "[fonts]\r\n"),
		WindowsStream("Files/Windows/win.ini", "Zone.Identifier", "[ZoneTransfer]\r\nZoneId=3\r\n"),
		WindowsData("Files/Windows/hidden.sys", "system").WithAttributes(ntfs.AttrHidden | ntfs.AttrSystem | ntfs.AttrReadonly),
		WindowsDir("Files/Windows/System32"),
		WindowsData("Files/Windows/System32/notepad.exe", "MZ notepad"),
		WindowsHardLink("Files/Windows/notepad.exe", "Files/Windows/System32/notepad.exe"),
		WindowsDir("Files/Windows/System32/drivers"), WindowsDir("Files/Windows/System32/drivers/etc"),
		WindowsData("Files/Windows/System32/drivers/etc/hosts", "127.0.0.1 localhost\r\n"),
		WindowsDir(config),
	}
	for _, name := range []string{"DEFAULT", "SAM", "SECURITY", "SYSTEM"} {
		hive, err := Hive(`HKEY_LOCAL_MACHINE\`+name, "")
		if err != nil {
			return nil, err
		}
		files = append(files, WindowsData(config+"/"+name, string(hive)))
	}
	return append(
		files, WindowsData(config+"/SOFTWARE", string(software)),
		WindowsDir("Files/data"), WindowsDir("Files/data/old"), WindowsData("Files/data/old/one.txt", "1"), WindowsData("Files/data/two.txt", "2"),
		WindowsDir("UtilityVM"), WindowsDir("UtilityVM/Files"), WindowsData("UtilityVM/Files/bootmgr", "boot"),
	), nil
}

func windowsApp(delta []byte) []WindowsFile {
	exe := WindowsData("Files/app/app.exe", "MZ app")
	exe.NT.EA = []ntfs.EA{{Name: "$CI.CATALOGHINT", Value: []byte{1, 0, 3}}}
	return []WindowsFile{
		WindowsDir("Files"), WindowsDir("Files/app"), exe, WindowsStream("Files/app/app.exe", "marked", "by the app layer"),
		WindowsDir("Files/app/lib"), WindowsData("Files/app/lib/a.dll", "MZ a"), WindowsData("Files/app/lib/b.dll", "MZ b"),
		WindowsHardLink("Files/app/ini.lnk", "Files/Windows/win.ini"), // which the base layer has
		WindowsDir("Files/windows"), WindowsDir("Files/windows/system32"), WindowsData("Files/windows/system32/App.dll", "MZ dll"),
		WindowsDir("Hives"), WindowsData("Hives/Software_Delta", string(delta)),
	}
}

func windowsTop(delta []byte) []WindowsFile {
	return []WindowsFile{
		WindowsDir("Files"), WindowsDir("Files/app"),
		WindowsWhiteout("Files/app/LIB"),
		WindowsData("Files/app/App.EXE", "MZ app"),
		WindowsWhiteout("Files/data"),
		WindowsLink("Files/data", `C:\app`, ntfs.TagMountPoint),
		WindowsDir("Files/Windows"),
		WindowsData("Files/Windows/win.ini", "[fonts]\r\n").WithDescriptor(WindowsOwnSDDL),
		WindowsDir("Hives"), WindowsData("Hives/Software_Delta", string(delta)),
	}
}

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/regf"
)

// What a layer with a utility VM gets. Names and sizes are those of hcsshim's internal/wclayer/legacy.go,
// internal/wclayer/cim/process.go and pkg/ociwclayer/import.go.
const (
	utilityVM      = "UtilityVM"
	utilityFiles   = "UtilityVM/Files"
	templateBase   = "SystemTemplateBase.vhdx"
	template       = "SystemTemplate.vhdx"
	templateSize   = 10 << 30
	bootStore      = "EFI/Microsoft/Boot/BCD" // below Files: the boot configuration, a registry hive
	uvmSoftware    = "Windows/System32/config/SOFTWARE"
	uvmVersionFile = "uvmbuildversion" // beside UtilityVM: the build of Windows that the VM is of
)

// ProcessUtilityVM makes dir, the directory UtilityVM of a layer with a utility VM's files in Files, ready for virtual
// machines: it adds SystemTemplateBase.vhdx, a disk of 10 GiB with an empty NTFS volume, and SystemTemplate.vhdx, a
// differencing disk on it, which a machine gets a copy of. If the VM's registry tells its build, it is written to
// uvmbuildversion in the layer's directory. The rest is as for ProcessBaseLayer.
//
// Files must have the boot configuration EFI/Microsoft/Boot/BCD, which must be a registry hive. It stays as it is. What Windows
// changes in it, and what it puts on the template's volume, is not public: a template made here starts no machine on Windows,
// where ProcessUtilityVMImage has to make it anew.
func ProcessUtilityVM(ctx context.Context, dir string) error {
	if err := processUtilityVM(ctx, dir); err != nil {
		return fmt.Errorf("process utility VM %s: %w", dir, err)
	}
	return nil
}

func processUtilityVM(ctx context.Context, dir string) (err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	root, err := inroot.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := checkBootStore(root); err != nil {
		return err
	}
	version := ""
	if filepath.Base(dir) == utilityVM {
		if version, err = uvmVersion(root); err != nil {
			return err
		}
	}
	a := additions{dir: dir, work: "utility-vm", names: []string{templateBase, template}}
	err = a.add(ctx, func(tree string) error { return makeTemplate(ctx, tree) })
	if err != nil || version == "" {
		return err
	}
	return writeVersion(filepath.Dir(dir), version)
}

// makeTemplate makes the disks that a machine's own disk is made of.
func makeTemplate(ctx context.Context, dir string) error {
	return makeBlankDisks(ctx, dir, templateBase, template, templateSize)
}

// writeVersion writes a utility VM's build to a layer's directory.
func writeVersion(dir, version string) error {
	return os.WriteFile(filepath.Join(dir, uvmVersionFile), []byte(version), 0o644) //nolint:gosec // no secret
}

// hasUtilityVM reports whether a layer directory has files of a utility VM.
func hasUtilityVM(root *inroot.Root) (bool, error) {
	st, err := root.Lstat(utilityFiles)
	if isMissing(err) {
		return false, nil
	}
	return err == nil && st.IsDir(), err
}

// checkBootStore opens the boot configuration of a utility VM.
func checkBootStore(root *inroot.Root) error {
	const name = "Files/" + bootStore
	found, err := findFile(root, name)
	if err == nil && found == "" {
		err = fmt.Errorf("find boot configuration %s: %w", name, errdefs.ErrNotFound)
	}
	if err != nil {
		return err
	}
	if st, err := root.Lstat(found); err != nil || st.Size == 0 {
		return errors.Join(err, fmt.Errorf("open boot configuration: %s is empty: %w: %w", name, regf.ErrCorrupt, errdefs.ErrInvalidArgument))
	}
	hive, err := openWholeHive(root, found, name)
	if err != nil {
		return fmt.Errorf("open boot configuration: %w", err)
	}
	return hive.Close()
}

// uvmVersion returns the build of a utility VM, and nothing if its registry does not tell.
func uvmVersion(root *inroot.Root) (version string, err error) {
	const name = "Files/" + uvmSoftware
	found, err := findFile(root, name)
	if err != nil || found == "" {
		return "", err
	}
	hive, err := openWholeHive(root, found, name)
	if err != nil {
		return "", fmt.Errorf("open the utility VM's registry: %w", err)
	}
	defer func() { err = errors.Join(err, hive.Close()) }()
	key, err := hive.Lookup(`Microsoft\Windows NT\CurrentVersion`)
	var value regf.Value
	if err == nil {
		value, err = key.Value("CurrentBuildNumber")
	}
	if errors.Is(err, regf.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", badHive(name, err)
	}
	build, err := strconv.ParseUint(digits(value.Data), 10, 16)
	if err != nil {
		return "", nil //nolint:nilerr // no number: as good as none
	}
	return strconv.FormatUint(build, 10), nil
}

// digits returns the ASCII characters that UTF-16 text begins with.
func digits(text []byte) string {
	var b strings.Builder
	for i := 0; i+1 < len(text) && text[i] >= '0' && text[i] <= '9' && text[i+1] == 0; i += 2 {
		b.WriteByte(text[i])
	}
	return b.String()
}

// cloneUtilityVM completes a new layer's utility VM with what the nearest parent's has, as Windows does it: a machine is
// started from one layer's directory. Files are further names of the parent's, but for those of the boot configuration, which
// Windows changes. What the layer removes stays marked as removed.
func (s *ntSource) cloneUtilityVM() error {
	for _, parent := range s.parents {
		there, err := hasUtilityVM(parent)
		if err != nil {
			return err
		}
		if there {
			c := cloner{from: parent, to: s.root, attr: s.attr}
			return c.dir(utilityFiles)
		}
	}
	return nil
}

// cloner adds to one layer directory what another has.
type cloner struct {
	from, to *inroot.Root
	attr     string
}

func (c *cloner) dir(name string) error {
	names, err := namesIn(c.from, name)
	if err != nil {
		return err
	}
	return keepTimes(c.to, name, func() error {
		for _, last := range names {
			if err := c.object(name + "/" + last); err != nil {
				return entryError(name+"/"+last, err)
			}
		}
		return nil
	})
}

// object adds an object, or what is missing in a directory that is in both.
func (c *cloner) object(name string) error {
	st, err := c.from.Lstat(name)
	if err != nil || st.IsWhiteout() {
		return err
	}
	there, err := c.to.Lstat(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch missing := err != nil; {
	case missing && st.IsDir():
		if err := c.makeDir(name); err != nil {
			return err
		}
	case missing && isBootStore(name):
		return c.copyFile(name, name)
	case missing:
		return c.link(name, name)
	case !there.IsDir() || !st.IsDir():
		return nil
	default:
		opaque, err := isOpaque(c.to, name)
		if err != nil || opaque {
			return err
		}
	}
	return c.dir(name)
}

// isBootStore reports whether a file is the boot configuration or a log of it.
func isBootStore(name string) bool {
	for _, suffix := range []string{"", ".LOG", ".LOG1", ".LOG2"} {
		if strings.EqualFold(name, utilityFiles+"/"+bootStore+suffix) {
			return true
		}
	}
	return false
}

// isOpaque reports whether a directory of a layer hides those below it.
func isOpaque(root *inroot.Root, name string) (bool, error) {
	attrs, err := xattrsOf(root, name)
	return attrs[overlayTrusted+"opaque"] == "y" || attrs[overlayUser+"opaque"] == "y", err
}

func xattrsOf(root *inroot.Root, name string) (map[string]string, error) {
	dir, last, err := root.OpenParent(name)
	if err != nil {
		return nil, err
	}
	attrs, err := dir.Xattrs(last)
	return attrs, errors.Join(err, dir.Close())
}

// link makes the name to for the other layer's file, or symbolic link, and shares what of its metadata is beside the tree.
func (c *cloner) link(name, to string) error {
	if err := linkAcross(c.from, name, c.to, to); err != nil {
		return err
	}
	attrs, err := xattrsOf(c.from, name)
	if err != nil {
		return err
	}
	return shareSpilled(c.from, c.to, attrs[c.attr])
}

// makeDir makes a directory that looks like the other layer's.
func (c *cloner) makeDir(name string) error {
	if err := c.to.Mkdir(name, 0o755); err != nil {
		return err
	}
	dir, err := c.to.OpenDir(name)
	if err != nil {
		return err
	}
	return c.finish(dir.Self(), name)
}

// copyFile makes the file to that looks like the other layer's.
func (c *cloner) copyFile(name, to string) error {
	in, err := openContent(c.from, name)
	if err != nil {
		return err
	}
	sys.KeepAccessTime(int(in.Fd()))
	out, err := c.to.Create(to, 0o644)
	if err != nil {
		return errors.Join(err, in.Close())
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, in.Close()); err != nil {
		return errors.Join(err, out.Close())
	}
	return c.finish(out, name)
}

// finish gives an object the other's metadata, and closes it.
func (c *cloner) finish(file *inroot.File, name string) error {
	st, err := c.from.Lstat(name)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	attrs, err := xattrsOf(c.from, name)
	value, ok := attrs[c.attr]
	if err == nil {
		err = file.Chmod(st.Mode & 0o7777)
	}
	if err == nil && ok {
		err = errors.Join(file.SetXattr(c.attr, value), shareSpilled(c.from, c.to, value))
	}
	if err == nil {
		err = file.SetTimes(st.ATime, st.MTime)
	}
	return errors.Join(err, file.Close())
}

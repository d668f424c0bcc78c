package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/ntfs"
	"github.com/hostcompute/hcs/regf"
	"github.com/hostcompute/hcs/rootfs"
)

// maxHive bounds the memory that a hive may take here. Those of Windows
// images are below 100 MiB.
const maxHive = 512 << 20

// hiveFiles are the hives of a layer: where a base layer has it, what a
// child layer's delta is called, and where Windows shows it.
var hiveFiles = []struct{ base, delta, key string }{
	{"Files/Windows/System32/config/DEFAULT", "Hives/DefaultUser_Delta", `HKEY_USERS\.DEFAULT`},
	{"Files/Windows/System32/config/SAM", "Hives/Sam_Delta", `HKEY_LOCAL_MACHINE\SAM`},
	{"Files/Windows/System32/config/SECURITY", "Hives/Security_Delta", `HKEY_LOCAL_MACHINE\SECURITY`},
	{"Files/Windows/System32/config/SOFTWARE", "Hives/Software_Delta", `HKEY_LOCAL_MACHINE\SOFTWARE`},
	{"Files/Windows/System32/config/SYSTEM", "Hives/System_Delta", `HKEY_LOCAL_MACHINE\SYSTEM`},
}

// hiveKey returns the key that Windows shows the hive at, or nothing if the
// entry is none. Base layers on a disk have hives as Hives/*_Base, too.
func hiveKey(e *layer.Entry) string {
	if e.Kind != layer.File {
		return ""
	}
	for _, h := range hiveFiles {
		base := strings.TrimSuffix(h.delta, "_Delta") + "_Base"
		if ntfs.EqualFold(e.Name, h.base) || ntfs.EqualFold(e.Name, h.delta) || ntfs.EqualFold(e.Name, base) {
			return h.key
		}
	}
	return ""
}

type layerRegistryOptions struct {
	layerSource
	hive     string
	whole    bool
	encoding textEncoding
}

// textEncoding is a flag for the encoding of regedit's text.
type textEncoding regf.TextEncoding

var textEncodings = map[string]textEncoding{"utf-8": textEncoding(regf.UTF8), "utf-16": textEncoding(regf.UTF16)}

func (e *textEncoding) String() string {
	for name, encoding := range textEncodings {
		if encoding == *e {
			return name
		}
	}
	return ""
}

func (e *textEncoding) Type() string { return "encoding" }

func (e *textEncoding) Set(text string) error {
	encoding, ok := textEncodings[strings.ToLower(text)]
	if !ok {
		return fmt.Errorf("%q is neither utf-8 nor utf-16", text)
	}
	*e = encoding
	return nil
}

func newLayerRegistry(a *app) *cobra.Command {
	var o layerRegistryOptions
	c := &cobra.Command{
		Use:   "registry [flags] LAYER [KEY]",
		Short: "Print the registry hives of a Windows layer as .reg text",
		Long: `Print the hives that a base layer has, or what another layer changes in those
below it: there [-KEY] and "VALUE"=- delete. KEY, as in
'HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft', prints that key alone, with all below it.
For regedit of Windows the text has to be UTF-16, unless all of it is ASCII.

` + layerUsage,
		Args: takes(1, 2, "a layer"),
		RunE: func(c *cobra.Command, args []string) error {
			return o.run(c.Context(), a, args[0], strings.Join(args[1:], ""))
		},
	}
	o.addFlags(c.Flags())
	addParents(c.Flags(), &o.parents)
	c.Flags().BoolVar(&o.whole, "whole", false, "of a layer's directory: print the hives whole, as a system on the layer and its parents has them")
	c.Flags().Var(&o.encoding, "encoding", "utf-8, or utf-16 with a byte order mark, as regedit itself writes it")
	c.Flags().StringVar(&o.hive, "hive", "", "`name` in the layer of a hive elsewhere, as Files/Users/Default/NTUSER.DAT, which is printed below HKEY_USERS; KEY may be relative to its root")
	return c
}

func (o *layerRegistryOptions) run(ctx context.Context, a *app, ref, key string) error {
	key = longRoot(strings.Trim(key, `\`))
	text := regf.NewTextWriter(a.out, regf.TextEncoding(o.encoding))
	write := o.write
	if o.whole {
		write = o.writeWhole
	}
	return errors.Join(write(ctx, a, text, ref, key), text.Flush())
}

func (o *layerRegistryOptions) write(ctx context.Context, a *app, text *regf.TextWriter, ref, key string) error {
	found := false
	err := o.each(ctx, a, ref, func(r *layer.Reader, e *layer.Entry) error {
		at, below, ok := o.place(e, key)
		if !ok {
			return nil
		}
		hive, err := readHive(r, e)
		if err != nil {
			return fmt.Errorf("read hive %q: %w", e.Name, err)
		}
		err = printKey(text, hive, at, below)
		if errors.Is(err, regf.ErrNotExist) {
			return nil
		}
		found = found || err == nil
		return err
	})
	if err == nil && !found {
		err = o.missing(ref, key)
	}
	return err
}

func (o *layerRegistryOptions) missing(ref, key string) error {
	what := cmp.Or(key, o.hive, "a registry hive")
	if key != "" && o.hive != "" {
		what += " in " + o.hive
	}
	return fault(errdefs.ErrNotFound, "find %s in layer %s: it has no such hive or key", what, ref)
}

// place returns the key that a hive is printed below, and the path from there
// of what is to be printed of it, if the entry is a hive that has it.
func (o *layerRegistryOptions) place(e *layer.Entry, key string) (at, below string, ok bool) {
	if o.hive == "" {
		at = hiveKey(e)
		below, ok = keyBelow(key, at)
		return at, below, ok && at != ""
	}
	if e.Kind != layer.File || !parseLayerName(o.hive).is(e) {
		return "", "", false
	}
	at = `HKEY_USERS\` + path.Base(e.Name) // where regedit would load it
	if below, ok = keyBelow(key, at); !ok {
		below = key
	}
	return at, below, true
}

// writeWhole prints the hives that a layer's directory and its parents add up
// to.
func (o *layerRegistryOptions) writeWhole(_ context.Context, _ *app, text *regf.TextWriter, ref, key string) error {
	l, err := rootfs.InspectLayer(ref)
	switch {
	case err != nil:
		return err
	case o.hive != "" || l.Scratch || l.Encoding != layer.NT:
		return usage("registry: --whole is for the hives of a Windows layer's directory")
	case len(o.parents) > 0:
		l.Parents = withNoted(slices.Clone(o.parents))
	}
	found := false
	for _, h := range hiveFiles {
		below, ok := keyBelow(key, h.key)
		if !ok {
			continue
		}
		name := rootfs.HiveName(path.Base(h.base))
		printed, err := printWholeHive(text, append([]string{l.Path}, l.Parents...), name, h.key, below)
		if err != nil {
			return err
		}
		found = found || printed
	}
	if !found {
		return o.missing(ref, key)
	}
	return nil
}

func printWholeHive(text *regf.TextWriter, dirs []string, name rootfs.HiveName, at, below string) (printed bool, err error) {
	hive, err := rootfs.OpenHive(dirs, name)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = printKey(text, hive.Hive, at, below)
	err = errors.Join(err, hive.Close())
	if errors.Is(err, regf.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// longRoot spells out the root keys that people abbreviate.
func longRoot(key string) string {
	root, rest, ok := strings.Cut(key, `\`)
	switch strings.ToUpper(root) {
	case "HKLM":
		root = "HKEY_LOCAL_MACHINE"
	case "HKU":
		root = "HKEY_USERS"
	}
	if !ok {
		return root
	}
	return root + `\` + rest
}

// keyBelow returns the part of a key's path below that of a hive's root, and
// whether it is there. All of a hive is below an empty or shorter path.
func keyBelow(key, root string) (string, bool) {
	switch {
	case key == "" || regf.EqualNames(key, root):
		return "", true
	case len(key) > len(root):
		return key[len(root)+1:], key[len(root)] == '\\' && regf.EqualNames(key[:len(root)], root)
	case len(key) < len(root):
		return "", root[len(key)] == '\\' && regf.EqualNames(root[:len(key)], key)
	}
	return "", false // as of SOFTWARE and SECURITY
}

// readHive reads all of a hive, and looks for what would make a walk long.
func readHive(r io.Reader, e *layer.Entry) (*regf.Hive, error) {
	if e.Size > maxHive {
		return nil, fault(errdefs.ErrResourceExhausted, "it has %d bytes, more than %d", e.Size, maxHive)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	hive, err := regf.Parse(data)
	if err != nil {
		return nil, err
	}
	return hive, hive.Validate()
}

func printKey(text *regf.TextWriter, hive *regf.Hive, at, below string) error {
	k, err := hive.Root()
	if err == nil && below != "" {
		k, err = hive.Lookup(below)
		at += `\` + below
	}
	if err != nil {
		return err
	}
	return text.Write(k, at)
}

// registryChange returns the text of what turns one hive into another.
func registryChange(lower, upper []byte, at string) (string, error) {
	before, err := regf.Parse(lower)
	if err != nil {
		return "", err
	}
	after, err := regf.Parse(upper)
	if err != nil {
		return "", err
	}
	delta, err := regf.Diff(before, after)
	if err != nil {
		return "", err
	}
	data, err := delta.Bytes()
	if err != nil {
		return "", err
	}
	hive, err := regf.Parse(data)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	text := regf.NewTextWriter(&b, regf.UTF8)
	err = errors.Join(printKey(text, hive, at, ""), text.Flush())
	return b.String(), err
}

package bundle

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/temporary"
)

// The names of what is in a bundle.
const (
	ConfigName = "config.json"
	RootfsName = "rootfs"
	MetaName   = "umoci.json"
)

// MetaVersion is the version of umoci.json that is read and written here.
const MetaVersion = "2"

const maxMeta = 4 << 20 // bytes: a path of descriptors is not longer than they are in indexes

// A Meta is what umoci.json holds: where a bundle came from. The form is
// umoci's, version 2.
type Meta struct {
	Version string   `json:"umoci_version"`
	From    From     `json:"from_descriptor_path"`
	Map     Mappings `json:"map_options"`
	// WhiteoutMode is 0: umoci knew others once, and refuses them.
	WhiteoutMode int `json:"whiteout_mode"`
	// Overlay, if not nil, says that rootfs is an overlay mount, and of what.
	// Umoci does not know it.
	Overlay *Overlay `json:"hcs_overlay,omitempty"`
}

// From is the way from a layout's list to the manifest that was unpacked.
type From struct {
	Walk []v1.Descriptor `json:"descriptor_walk"`
}

// Mappings say how owners in an image become owners on disk.
type Mappings struct {
	UIDs []specs.LinuxIDMapping `json:"uid_mappings"`
	GIDs []specs.LinuxIDMapping `json:"gid_mappings"`
	// Rootless is for an ordinary user: everything is his on disk, and other
	// owners are kept in the extended attribute user.rootlesscontainers
	// (https://rootlesscontaine.rs).
	Rootless bool `json:"rootless"`
}

// WithDefaults returns the mappings with what Rootless implies: where nothing
// is mapped, root is this process's user.
func (m Mappings) WithDefaults() Mappings {
	if m.Rootless && m.UIDs == nil {
		m.UIDs = []specs.LinuxIDMapping{{HostID: uint32(os.Geteuid()), Size: 1}}
	}
	if m.Rootless && m.GIDs == nil {
		m.GIDs = []specs.LinuxIDMapping{{HostID: uint32(os.Getegid()), Size: 1}}
	}
	return m
}

// mapped says whether owners are mapped otherwise than Rootless implies.
func (m Mappings) mapped() bool {
	m = m.WithDefaults()
	implied := Mappings{Rootless: m.Rootless}.WithDefaults()
	return !slices.Equal(m.UIDs, implied.UIDs) || !slices.Equal(m.GIDs, implied.GIDs)
}

// ParseMapping parses "container:host:size", or "container:host" for one id.
// The error is of class ErrInvalidArgument.
func ParseMapping(s string) (specs.LinuxIDMapping, error) {
	parts := strings.Split(s, ":")
	ids := [3]uint32{2: 1}
	if len(parts) < 2 || len(parts) > 3 {
		return specs.LinuxIDMapping{}, invalid("parse mapping %q: it is not container:host:size", s)
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return specs.LinuxIDMapping{}, invalid("parse mapping %q: %q is not an id", s, part)
		}
		ids[i] = uint32(n)
	}
	if ids[2] == 0 || uint64(max(ids[0], ids[1]))+uint64(ids[2]) > 1<<32-1 {
		return specs.LinuxIDMapping{}, invalid("parse mapping %q: %d ids from there are none", s, ids[2])
	}
	return specs.LinuxIDMapping{ContainerID: ids[0], HostID: ids[1], Size: ids[2]}, nil
}

// ReadMeta reads a bundle's umoci.json. The error is of class ErrNotFound or
// fs.ErrNotExist if there is none, and of class ErrInvalidArgument if it is not
// one of version 2.
func ReadMeta(dir string) (Meta, error) {
	var m Meta
	raw, err := image.ReadFile(filepath.Join(dir, MetaName), maxMeta)
	if err != nil {
		return m, fmt.Errorf("read bundle %s: %w", dir, err)
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, invalid("read %s of bundle %s: %w", MetaName, dir, err)
	}
	switch {
	case m.Version != MetaVersion:
		return m, invalid("read %s of bundle %s: its version is %q, not %q", MetaName, dir, m.Version, MetaVersion)
	case len(m.From.Walk) == 0:
		return m, invalid("read %s of bundle %s: it does not say which image the bundle is from", MetaName, dir)
	case m.WhiteoutMode != 0:
		return m, invalid("read %s of bundle %s: whiteout mode %d is not supported", MetaName, dir, m.WhiteoutMode)
	}
	for _, d := range m.From.Walk {
		if err := image.CheckDescriptor(d); err != nil {
			return m, fmt.Errorf("read %s of bundle %s: %w", MetaName, dir, err)
		}
	}
	return m, nil
}

// manifest returns the descriptor of the image that the bundle is from.
func (m Meta) manifest() v1.Descriptor { return m.From.Walk[len(m.From.Walk)-1] }

// mtreeName is the name of the manifest of the files that an image's manifest
// was unpacked to.
func mtreeName(d v1.Descriptor) string {
	return strings.Replace(string(d.Digest), ":", "_", 1) + ".mtree"
}

// write writes umoci.json to a directory.
func (m Meta) write(dir string) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", MetaName, err)
	}
	return writeFile(filepath.Join(dir, MetaName), func(w io.Writer) error {
		_, err := w.Write(append(raw, '\n'))
		return err
	})
}

// writeFile makes a file, of which half may be there when it fails or this is
// killed: it is for private directories.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 64<<10)
	if err := write(w); err != nil { // which says what failed
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(w.Flush(), f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// replacing is where files are made that get names in dir when they are whole.
func replacing(dir string) *temporary.Config {
	return &temporary.Config{Parent: dir, Prefix: ".hcs-write-"}
}

// replace has write make the files of these names in a private directory, and
// then puts them in their places in dir, in this order. What a killed call left
// there the next one removes.
func replace(ctx context.Context, dir string, names []string, write func(dir string) error) (err error) {
	t, err := temporary.New(ctx, *replacing(dir))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Remove()) }()
	if err := write(t.Path()); err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Rename(t.Path(name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

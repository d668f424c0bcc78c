// Package hcs is the Host Compute System on Linux: image layers, compute
// systems (containers and the processes in them), and networks, without a
// daemon.
//
// Open gives a Host, which hands out the services on one pair of state
// directories: the image store, the layer store and the container service.
// They can be used by themselves; what Host adds is what needs several of
// them, such as running an image or making one of what a container has
// written.
//
// Running containers takes root, or what an ordinary user has of it after
// EnterUserNamespace.
package hcs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/userns"
	"github.com/hostcompute/hcs/layer"
	"github.com/hostcompute/hcs/rootfs"
)

// EnterUserNamespace makes an ordinary user's program root of a user and a
// mount namespace of its own, in which Open, images and containers work as
// they do for root. It runs the program again, in place of this process, with
// the same arguments, environment and open descriptors; so it is to be called
// first in main, before anything is started or read. For root, and in the
// program that was run again, it returns at once.
//
// The user is 0 in the namespace. The ids from 1 on are those that /etc/subuid
// and /etc/subgid give the user, where the programs newuidmap and newgidmap
// are installed. If there are none, images are unpacked without their owners
// and containers have no user but root.
//
// Programs that enter one after the other, in other sessions too, find each
// other's containers. Mounts are the program's own and end with it.
func EnterUserNamespace() error { return userns.Enter() }

// ArriveInUserNamespace is for programs that call EnterUserNamespace late, or
// for some of their tasks alone: called first in main it has the program that
// was run again be in its working directory from the beginning. Elsewhere it
// does nothing.
func ArriveInUserNamespace() error { return userns.Arrive() }

// Config says where a host keeps its state and what it runs containers with.
// The zero value is right for most.
type Config struct {
	// Root holds what lasts: images, layers, containers. Empty: /var/lib/hcs for
	// root, else hcs in $XDG_DATA_HOME or ~/.local/share.
	Root string
	// Run holds what only matters while the machine is up. Empty: /run/hcs for
	// root, else hcs in $XDG_RUNTIME_DIR or a directory in /tmp.
	Run string
	// Runtime, Libexec and CgroupParent are those of container.Config.
	Runtime, Libexec, CgroupParent string
	// Endpoints is that of container.Config.
	Endpoints container.Endpoints
	// Limits bound what an image may cost that is loaded or unpacked.
	Limits Limits
	// Logger takes what goes on. Nil discards it.
	Logger *slog.Logger
}

// Limits are those of finding an image and of each of its layers. The zero
// value is right for most.
type Limits struct {
	Image image.Limits
	Layer layer.Limits
}

func (c Config) withDefaults() (Config, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	var err error
	if c.Root == "" {
		c.Root, err = defaultRoot()
	}
	if c.Run == "" {
		c.Run = defaultRun()
	}
	var rerr, serr error
	if err == nil {
		c.Root, rerr = filepath.Abs(c.Root)
		c.Run, serr = filepath.Abs(c.Run)
	}
	return c, errors.Join(err, rerr, serr)
}

// owner returns the uid of the ordinary user whose program this is.
func owner() (uid int, ordinary bool) {
	if uid, ok := userns.Owner(); ok {
		return uid, true
	}
	uid = os.Geteuid()
	return uid, uid != 0
}

func defaultRoot() (string, error) {
	if _, ordinary := owner(); !ordinary {
		return "/var/lib/hcs", nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "hcs"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find a state directory: %w", err)
	}
	return filepath.Join(home, ".local", "share", "hcs"), nil
}

// defaultRun must be the same in every session of a user: not all have the
// variable set.
func defaultRun() string {
	uid, ordinary := owner()
	if !ordinary {
		return "/run/hcs"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "hcs")
	}
	dir := filepath.Join("/run/user", strconv.Itoa(uid))
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return filepath.Join(dir, "hcs")
	}
	return filepath.Join(os.TempDir(), "hcs-"+strconv.Itoa(uid))
}

// layerConfig says how layers are unpacked here: as far as this process may.
func layerConfig(c Config) (rootfs.Config, error) {
	r := rootfs.Config{Dir: c.Root, Logger: c.Logger, Limits: c.Limits.Layer, UserXattr: os.Geteuid() > 0}
	if userns.IsInitial() {
		return r, nil
	}
	uids, err := userns.UIDs()
	if err != nil {
		return r, fmt.Errorf("read the user namespace's ids: %w", err)
	}
	r.UserXattr, r.Owner = true, rootfs.MapOwner
	if uids.Count() == 1 {
		r.Owner = rootfs.IgnoreOwner
	}
	return r, nil
}

// LayerOptions says how layers are stored in directories of their own here: as
// far as this process may.
func LayerOptions() (rootfs.NTOptions, error) {
	c, err := layerConfig(Config{})
	return rootfs.NTOptions{UserXattr: rootfs.UserXattrs(c.UserXattr), Owner: c.Owner}, err
}

// Host is the services on one pair of state directories. Its methods may be
// called at once, and by several programs.
type Host struct {
	config     Config
	images     *image.Store
	layers     *rootfs.Store
	containers *container.Service
}

// Open returns the host with the configured directories, which it makes if
// they are missing. There is nothing to close.
func Open(c Config) (*Host, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open host: %w", err)
	}
	h := &Host{config: c}
	for _, dir := range []string{c.Root, c.Run} {
		if err := makePrivate(dir); err != nil {
			return nil, fmt.Errorf("open host: %w", err)
		}
	}
	if h.images, err = image.OpenStore(filepath.Join(c.Root, "images")); err != nil {
		return nil, fmt.Errorf("open host: %w", err)
	}
	lc, err := layerConfig(c)
	if err != nil {
		return nil, fmt.Errorf("open host: %w", err)
	}
	if h.layers, err = rootfs.Open(lc); err != nil {
		return nil, fmt.Errorf("open host: %w", err)
	}
	h.containers, err = container.Open(container.Config{
		Root: c.Root, Run: c.Run, Layers: h.layers, Runtime: c.Runtime, Libexec: c.Libexec,
		CgroupParent: c.CgroupParent, Endpoints: c.Endpoints, Logger: c.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("open host: %w", err)
	}
	return h, nil
}

// makePrivate makes a directory, or sees that the one that is there is nobody
// else's to write to: one with a known name in /tmp could be anyone's. The
// owner is whoever may change its mode.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, info.Mode()); err != nil {
		return fmt.Errorf("use directory %s: it is another user's: %w", dir, err)
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("use directory %s: everybody may write to it: %w", dir, errdefs.ErrPermissionDenied)
	}
	return nil
}

// Config returns the configuration with the defaults filled in.
func (h *Host) Config() Config { return h.config }

// Images returns the image store.
func (h *Host) Images() *image.Store { return h.images }

// Layers returns the store of unpacked and scratch layers.
func (h *Host) Layers() *rootfs.Store { return h.layers }

// Containers returns the container service.
func (h *Host) Containers() *container.Service { return h.containers }

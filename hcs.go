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
// Running containers takes root today, and an OCI runtime (runc or crun).
package hcs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/rootfs"
)

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
	// Logger takes what goes on. Nil discards it.
	Logger *slog.Logger
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

func defaultRoot() (string, error) {
	if os.Geteuid() == 0 {
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

func defaultRun() string {
	if os.Geteuid() == 0 {
		return "/run/hcs"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "hcs")
	}
	return filepath.Join(os.TempDir(), "hcs-"+strconv.Itoa(os.Geteuid()))
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
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open host: %w", err)
		}
	}
	if h.images, err = image.OpenStore(filepath.Join(c.Root, "images")); err != nil {
		return nil, fmt.Errorf("open host: %w", err)
	}
	if h.layers, err = rootfs.Open(rootfs.Config{Dir: c.Root, Logger: c.Logger}); err != nil {
		return nil, fmt.Errorf("open host: %w", err)
	}
	h.containers, err = container.Open(container.Config{
		Root: c.Root, Run: c.Run, Layers: h.layers, Runtime: c.Runtime, Libexec: c.Libexec,
		CgroupParent: c.CgroupParent, Logger: c.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("open host: %w", err)
	}
	return h, nil
}

// Config returns the configuration with the defaults filled in.
func (h *Host) Config() Config { return h.config }

// Images returns the image store.
func (h *Host) Images() *image.Store { return h.images }

// Layers returns the store of unpacked and scratch layers.
func (h *Host) Layers() *rootfs.Store { return h.layers }

// Containers returns the container service.
func (h *Host) Containers() *container.Service { return h.containers }

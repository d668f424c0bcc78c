package rootfs

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/hostcompute/hcs/internal/inroot"
)

// Processing says what ImportNT makes of a layer beside what the layer brings.
type Processing int

const (
	// Unprocessed leaves it at the layer and its whole registry hives.
	Unprocessed Processing = iota
	// Processed does what writers of layers do on Windows at the end: a layer without parents becomes a base layer, as by
	// ProcessBaseLayer. In one with a utility VM, the VM has all that the nearest parent's has, and is ready, as by
	// ProcessUtilityVM; the layer's own files of its boot configuration are also in bcd.bak, bcd.log.bak, bcd.log1.bak and
	// bcd.log2.bak.
	Processed
)

// process does what the layer is to be processed for, when all of it is in the tree.
func (s *ntSource) process(ctx context.Context) error {
	if len(s.parents) == 0 {
		b := &baseLayer{root: s.root, attr: s.attr}
		if err := b.checkHives(); err != nil {
			return fmt.Errorf("process base layer: %w", err)
		}
		if err := b.fill(ctx, s.dir); err != nil {
			return fmt.Errorf("process base layer: %w", err)
		}
	}
	vm, err := hasUtilityVM(s.root)
	if err != nil || !vm {
		return err
	}
	if err := s.processUtilityVM(ctx); err != nil {
		return fmt.Errorf("process utility VM: %w", err)
	}
	return nil
}

func (s *ntSource) processUtilityVM(ctx context.Context) error {
	if err := s.keepBootStore(); err != nil {
		return err
	}
	if err := s.cloneUtilityVM(); err != nil {
		return err
	}
	dir := filepath.Join(s.dir, utilityVM)
	root, err := inroot.Open(dir)
	if err != nil {
		return err
	}
	err = checkBootStore(root)
	version := ""
	if err == nil {
		version, err = uvmVersion(root)
	}
	if err := errors.Join(err, root.Close()); err != nil {
		return err
	}
	if err := keepTimes(s.root, utilityVM, func() error { return makeTemplate(ctx, dir) }); err != nil || version == "" {
		return err
	}
	return writeVersion(s.dir, version)
}

// bootCopies are the names that hcsshim's pkg/ociwclayer/import.go has for what the layer brings of the boot configuration.
var bootCopies = map[string]string{"": "bcd.bak", ".LOG": "bcd.log.bak", ".LOG1": "bcd.log1.bak", ".LOG2": "bcd.log2.bak"}

func (s *ntSource) keepBootStore() error {
	c := cloner{from: s.root, to: s.root, attr: s.attr}
	for suffix, name := range bootCopies {
		found, err := findFile(s.root, utilityFiles+"/"+bootStore+suffix)
		if err == nil && found != "" {
			err = c.copyFile(found, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// shareSpilled gives a layer directory what is beside the tree of the metadata that an attribute tells of.
func shareSpilled(from, to *inroot.Root, attr string) error {
	if len(attr) < ntHeader || attr[1]&ntSpilled == 0 {
		return nil
	}
	short := int(attr[2]) | int(attr[3])<<8
	if len(attr) < ntHeader+short {
		return nil // damaged, which is found when it is read
	}
	name := ntSpill + "/" + hex.EncodeToString([]byte(attr[ntHeader+short:]))
	if err := linkAcross(from, name, to, name); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("share metadata %s: %w", name, err)
	}
	return nil
}

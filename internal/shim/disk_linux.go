package shim

import (
	"errors"
	"os"
	"slices"

	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/wire"
)

// openDisk mounts the file system of an image, attached nowhere. Nothing in it
// is a device, or gives privileges: who made it is not known.
func openDisk(d *wire.Disk, users *os.File) (*os.File, error) {
	image := sys.Image{Path: d.Image, Type: d.Type, Size: d.Size, ReadOnly: d.ReadOnly}
	return sys.NewImage(image, sys.AttrNoDev|sys.AttrNoSuid, users)
}

// mountDisks mounts the disks in this mount namespace, for the container's
// mounts to be made of.
func (s *shim) mountDisks() error {
	for i := range s.spec.Disks {
		if err := mountDisk(&s.spec.Disks[i]); err != nil {
			return errors.Join(err, s.unmountDisks())
		}
	}
	return nil
}

func mountDisk(d *wire.Disk) error {
	if err := os.MkdirAll(d.Target, 0o700); err != nil {
		return err
	}
	m, err := openDisk(d, nil)
	if err != nil {
		return err
	}
	defer m.Close() // attached, or of no more use
	f, err := os.Open(d.Target)
	if err != nil {
		return err
	}
	return errors.Join(sys.AttachMount(int(m.Fd()), int(f.Fd())), f.Close())
}

func (s *shim) unmountDisks() error {
	var errs []error
	for i := range slices.Backward(s.spec.Disks) {
		errs = append(errs, sys.Unmount(s.spec.Disks[i].Target))
	}
	return errors.Join(errs...)
}

package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

// ownership knows what a new object gets by itself, which spares system calls, and what this process may set.
type ownership struct {
	uid, gid uint32
	policy   OwnerPolicy
	umask    uint32 // bits of a mode that creating a file does not set
}

func newOwnership(opts ApplyOptions) ownership {
	return ownership{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), policy: opts.Owner, umask: 0o777}
}

// probe finds out which mode bits creation sets. A default ACL takes the umask's place, and a plain tree may have one
// anywhere.
func (o *ownership) probe(root *inroot.Dir, format Format) error {
	if format == Directory {
		return nil
	}
	_, err := root.Self().Xattr(aclDefault)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sys.ErrNoXattr), errors.Is(err, sys.ErrNotSupported):
		o.umask = sys.Umask()
		return nil
	}
	return fmt.Errorf("look for a default ACL: %w", err)
}

// createMode is the mode that a file is created with: nobody else may open it before it is complete unless it has this mode
// for good.
func (o *ownership) createMode(e *layer.Entry) uint32 {
	if o.mustChmod(e) {
		return 0o600
	}
	return e.Mode
}

func (o *ownership) mustChmod(e *layer.Entry) bool {
	return e.Mode&^0o777 != 0 || e.Mode&o.umask != 0 || o.uid != 0 && len(e.Xattrs) > 0
}

// mustChown reports whether a new object in parent gets another owner by itself than the entry's. Its group is the
// process's, or else, by a setgid bit or the mount option grpid, the parent's.
func (o *ownership) mustChown(e *layer.Entry, parent *inroot.Dir) bool {
	return e.UID != o.uid || e.GID != o.gid || parent.Stat().GID != o.gid
}

// chowned judges how giving an object to the entry's owner went. The kernel calls an id invalid that the user namespace
// does not map.
func (o *ownership) chowned(e *layer.Entry, err error) error {
	unmapped := errors.Is(err, syscall.EINVAL)
	switch {
	case o.policy == IgnoreOwner && (unmapped || errors.Is(err, sys.ErrNotPermitted)):
		return nil
	case unmapped:
		return fmt.Errorf("give it to %d:%d, for which this user namespace has no ids: %w: %w", e.UID, e.GID, err,
			errdefs.ErrFailedPrecondition)
	}
	return err
}

// xattrSet drops the error of an attribute that only root may set, where that is the policy.
func (o *ownership) xattrSet(attr string, err error) error {
	if errors.Is(err, sys.ErrNotPermitted) &&
		(o.policy == IgnoreOwner || o.policy == MapOwner && strings.HasPrefix(attr, "trusted.")) {
		return nil
	}
	return err
}

// setUserXattrs sets those extended attributes of an entry that take the right to write what they belong to. An ordinary
// user may have none left once an object has its mode.
func (o *ownership) setUserXattrs(e *layer.Entry, set func(attr, value string) error) error {
	return o.setThose(e, o.isEarly, set)
}

// setXattrs sets an entry's other extended attributes, but for those that belong to the host.
func (o *ownership) setXattrs(e *layer.Entry, set func(attr, value string) error) error {
	return o.setThose(e, func(attr string) bool { return !o.isEarly(attr) }, set)
}

func (o *ownership) isEarly(attr string) bool { return o.uid != 0 && strings.HasPrefix(attr, "user.") }

func (o *ownership) setThose(e *layer.Entry, which func(string) bool, set func(attr, value string) error) error {
	for attr, value := range e.Xattrs {
		if isHostXattr(attr) || !which(attr) {
			continue
		}
		if err := o.xattrSet(attr, set(attr, value)); err != nil {
			return fmt.Errorf("set extended attribute %s: %w", attr, err)
		}
	}
	return nil
}

// readXattrs returns the attributes that an object got. Where its own mode forbids to read them, they are those that an
// ordinary user may set.
func (o *ownership) readXattrs(e *layer.Entry, f *inroot.File) (map[string]string, error) {
	attrs, err := f.Xattrs()
	if !errors.Is(err, fs.ErrPermission) || e == nil {
		return attrs, err
	}
	attrs = make(map[string]string, len(e.Xattrs))
	for attr, value := range e.Xattrs {
		if o.isEarly(attr) && !isHostXattr(attr) {
			attrs[attr] = value
		}
	}
	return attrs, nil
}

// clearXattrs removes the attributes of an object that was there before its entry.
func clearXattrs(f *inroot.File) error {
	attrs, err := f.Xattrs()
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	for attr := range attrs {
		if isHostXattr(attr) {
			continue
		}
		if err := f.RemoveXattr(attr); err != nil && !errors.Is(err, sys.ErrNoXattr) {
			return fmt.Errorf("remove extended attribute %s: %w", attr, err)
		}
	}
	return nil
}

// Prefixes of the attributes in which overlayfs keeps its marks.
const (
	overlayTrusted = "trusted.overlay."
	overlayUser    = "user.overlay."
)

// isHostXattr reports whether an attribute is the host's policy or bookkeeping, and never part of a layer: labels that
// SELinux gives, hashes and signatures by the host's keys, NFS's idea of ACLs, overlayfs's marks.
func isHostXattr(attr string) bool {
	switch attr {
	case "security.selinux", "security.ima", "security.evm", "system.nfs4_acl":
		return true
	}
	return strings.HasPrefix(attr, overlayTrusted) || strings.HasPrefix(attr, overlayUser)
}

// times returns an entry's access and modification time.
func times(e *layer.Entry) (atime, mtime time.Time) {
	atime, mtime = e.AccessTime, e.ModTime
	if mtime.IsZero() {
		mtime = time.Unix(0, 0)
	}
	if atime.IsZero() {
		atime = mtime
	}
	return atime, mtime
}

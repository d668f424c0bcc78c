package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/layer"
)

const aclDefault = "system.posix_acl_default"

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

// createMode is the mode that a file with the given final mode is created with: nobody else may open it before it is
// complete unless it has this mode for good.
func (o *ownership) createMode(mode uint32) uint32 {
	if o.mustChmod(mode) {
		return 0o600
	}
	return mode
}

func (o *ownership) mustChmod(mode uint32) bool {
	return mode&^0o777 != 0 || mode&o.umask != 0
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

// setXattrs sets the entry's extended attributes, but for those that belong to the host.
func (o *ownership) setXattrs(e *layer.Entry, set func(attr, value string) error) error {
	for attr, value := range e.Xattrs {
		if isHostXattr(attr) {
			continue
		}
		if err := o.xattrSet(attr, set(attr, value)); err != nil {
			return fmt.Errorf("set extended attribute %s: %w", attr, err)
		}
	}
	return nil
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

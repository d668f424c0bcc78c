package rootfs

import (
	"crypto/sha256"
	"errors"
	"io"

	"github.com/hostcompute/hcs/internal/inroot"
	"github.com/hostcompute/hcs/internal/sys"
)

// parentWith returns the nearest parent that has a name, as it is spelled, and what that is there; nil if none shows it.
func (s *ntSource) parentWith(name string) (*inroot.Root, sys.Stat, error) {
	for _, root := range s.parents {
		st, err := root.Lstat(name)
		switch {
		case isMissing(err):
			continue
		case err != nil || st.IsWhiteout():
			return nil, st, err
		}
		return root, st, nil
	}
	return nil, sys.Stat{}, nil
}

// adopt returns the metadata of a parent's object as an attribute, and stores what is too big for it.
func (s *ntSource) adopt(from *inroot.Root, name string) (string, error) {
	record, err := readNTRecord(from)
	if err != nil {
		return "", err
	}
	dir, last, err := from.OpenParent(name)
	if err != nil {
		return "", err
	}
	attrs, err := dir.Xattrs(last)
	if err := errors.Join(err, dir.Close()); err != nil {
		return "", err
	}
	value := attrs[ntAttrName(record.UserXattr)]
	if len(value) < ntHeader+sha256.Size || value[1]&ntSpilled == 0 {
		return value, nil
	}
	stream, err := spillsOf(from)([sha256.Size]byte([]byte(value[len(value)-sha256.Size:])))
	if err != nil {
		return "", err
	}
	_, err = spillTo(s.streams.dir, func(w io.Writer) error {
		_, err := io.Copy(w, stream)
		return err
	})
	return value, errors.Join(err, stream.Close())
}

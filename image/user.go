package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/hostcompute/hcs/internal/passwd"
)

// ResolveUser finds the user that an image's configuration or a command line
// names: "", "user", "uid", "user:group", "uid:gid", or a mixture. It returns
// the identity and the home directory, empty if passwd does not tell.
//
// open opens a file of the image, "/etc/passwd" or "/etc/group", within the
// image's root and only if it is regular; it returns fs.ErrNotExist or
// errdefs.ErrNotFound if it is not there, which is no error for ids in
// digits. Without a group the user's own is taken, and those that list the
// user as a member. The primary group is among the supplementary ones, else
// a process could shed it and with it what the group may not (CVE-2022-36109).
//
// A name that is not found is an error of class ErrNotFound; a malformed id,
// or a file larger than 1 MiB, one of class ErrInvalidArgument. Lines that are
// malformed are passed over: an id that is no number is never taken for 0.
func ResolveUser(spec string, open func(name string) (io.ReadCloser, error)) (specs.User, string, error) {
	files := passwd.Files{
		Owner: "the image",
		Read:  func(name string) (string, error) { return readAccounts(name, open) },
	}
	u, err := files.Find(spec)
	switch {
	case errors.Is(err, passwd.ErrNotFound):
		err = &classError{errdefs.ErrNotFound, err}
	case errors.Is(err, passwd.ErrInvalid):
		err = &classError{errdefs.ErrInvalidArgument, err}
	}
	if err != nil {
		return specs.User{}, "", fmt.Errorf("resolve user %q: %w", spec, err)
	}
	return specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.Groups}, u.Home, nil
}

// readAccounts reads one of the files whole; one that is not there is empty.
func readAccounts(name string, open func(string) (io.ReadCloser, error)) (string, error) {
	r, err := open(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errdefs.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("open the image's %s: %w", name, err)
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, passwd.MaxSize+1))
	if err != nil {
		return "", fmt.Errorf("read the image's %s: %w", name, err)
	}
	if len(raw) > passwd.MaxSize {
		return "", invalid("read the image's %s: it is larger than %d bytes", name, passwd.MaxSize)
	}
	return string(raw), nil
}

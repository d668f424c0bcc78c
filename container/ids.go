package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/userns"
)

// IDs is a run of the host's user and group ids: a system's own ids from 0 on
// are those from First on, Size of them.
type IDs struct {
	First uint32 `json:"first"`
	Size  uint32 `json:"size"`
}

// AutoIDs asks for a run of DefaultIDs ids that no other system of the service
// has, and that /etc/subuid and /etc/subgid give nobody.
var AutoIDs = IDs{Size: DefaultIDs}

// DefaultIDs is the size of a run where nobody chose one: all ids that Linux
// distributions use.
const DefaultIDs = 1 << 16

// noID is no id: chown(2) takes it for "as it is".
const noID = 1<<32 - 1

// The runs of AutoIDs: the upper half of all ids, which distributions give
// nobody (podman's users are asked to give it to containers, too).
const (
	firstAuto = 1 << 31
	endOfAuto = noID
)

// isHost reports whether there is no run: the system's ids are the host's.
func (i IDs) isHost() bool { return i == IDs{} }

func (i IDs) isAuto() bool { return i.First == 0 && i.Size > 0 }

func (i IDs) end() uint64 { return uint64(i.First) + uint64(i.Size) }

func (i IDs) overlaps(o IDs) bool {
	return uint64(i.First) < o.end() && uint64(o.First) < i.end()
}

// String is the run's name among those of other systems.
func (i IDs) String() string { return fmt.Sprintf("%d-%d", i.First, i.Size) }

func parseIDs(name string) (IDs, bool) {
	var i IDs
	_, err := fmt.Sscanf(name, "%d-%d", &i.First, &i.Size)
	return i, err == nil && i.String() == name
}

func (s *Spec) checkIDs() error {
	switch i := s.IDs; {
	case i.First != 0 && i.Size == 0:
		return fmt.Errorf("ids from %d on: say how many", i.First)
	case i.end() > noID:
		return fmt.Errorf("ids from %d to %d: the last is %d", i.First, i.end()-1, uint32(noID-1))
	}
	return nil
}

// mayMapIDs says what keeps a system from having ids of its own.
func (s *Service) mayMapIDs(i IDs) error {
	if i.isHost() {
		return nil
	}
	if !userns.IsInitial() {
		return fault(errdefs.ErrNotImplemented, "give it ids of its own: an ordinary user's containers have those of the user's namespace")
	}
	rt, err := s.Runtime()
	if err == nil && rt.Kind != nativeKind {
		err = fault(errdefs.ErrNotImplemented, "give it ids of its own with %s: only the native starter does that", rt.Kind)
	}
	return err
}

func (s *Service) idsDir() string { return filepath.Join(s.cfg.Root, "ids") }

// idsLock is the name of the lock of the directory of ids.
const idsLock = "ids"

// claimIDs keeps a run of ids for the system, under a name that leads to it as
// the system's own does: what has no record is found by it.
func (s *Service) claimIDs(ctx context.Context, r *Record) (err error) {
	if r.Spec.IDs.isHost() {
		return nil
	}
	lock, err := s.records.Lock(ctx, idsLock)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if err := os.MkdirAll(s.idsDir(), 0o700); err != nil {
		return err
	}
	ids, err := s.findIDs(r.Spec.IDs)
	if err != nil { // those of systems that are gone are not given back on every way
		if err := s.dropIDs(); err != nil {
			return err
		}
		ids, err = s.findIDs(r.Spec.IDs)
	}
	if err != nil {
		return err
	}
	r.IDs = ids
	return os.Symlink(r.ID, s.idsLink(ids))
}

// findIDs returns a run as it was asked for that nobody has.
func (s *Service) findIDs(want IDs) (IDs, error) {
	taken, err := s.takenIDs()
	if err != nil {
		return IDs{}, err
	}
	if want.isAuto() {
		return freeIDs(want.Size, append(taken, subordinateIDs()...))
	}
	if i := slices.IndexFunc(taken, want.overlaps); i >= 0 {
		return IDs{}, fault(errdefs.ErrAlreadyExists, "have the ids %s: another container has %s", want, taken[i])
	}
	return want, nil
}

func (s *Service) idsLink(i IDs) string { return filepath.Join(s.idsDir(), i.String()) }

// dropIDs gives back the runs of systems that are gone. Those of systems that
// are being created, whose locks are held, are not.
func (s *Service) dropIDs() error {
	_, err := s.dropLinks(s.idsDir(), func(owner string) bool {
		if !s.isNobody(owner) {
			return false
		}
		lock, err := s.records.TryLock(owner)
		if err != nil {
			return errdefs.IsInvalidArgument(err)
		}
		return lock.Unlock() == nil
	})
	return err
}

func (s *Service) takenIDs() ([]IDs, error) {
	entries, err := os.ReadDir(s.idsDir())
	if err != nil {
		return nil, err
	}
	var taken []IDs
	for _, e := range entries {
		if i, ok := parseIDs(e.Name()); ok {
			taken = append(taken, i)
		}
	}
	return taken, nil
}

// freeIDs returns the first run of the size that overlaps none of those.
func freeIDs(size uint32, taken []IDs) (IDs, error) {
	slices.SortFunc(taken, func(a, b IDs) int { return cmp.Compare(a.First, b.First) })
	free := IDs{First: firstAuto, Size: size}
	for _, t := range taken {
		if free.overlaps(t) && t.end() < endOfAuto {
			free.First = uint32(t.end())
		}
	}
	if free.end() > endOfAuto || slices.ContainsFunc(taken, free.overlaps) {
		return IDs{}, fault(errdefs.ErrResourceExhausted, "find %d ids: others have those from %d on", size, uint32(firstAuto))
	}
	return free, nil
}

// subordinateIDs returns the ids that the machine's users may use. Files that
// cannot be read give nobody any.
func subordinateIDs() []IDs {
	var list []IDs
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, e := range userns.Subordinate(string(text)) {
			list = append(list, IDs{First: e.Outside, Size: e.Count})
		}
	}
	return list
}

// returnIDs gives a system's ids back.
func (s *Service) returnIDs(r *Record) error {
	if r.IDs.isHost() {
		return nil
	}
	link := s.idsLink(r.IDs)
	if id, err := os.Readlink(link); errors.Is(err, fs.ErrNotExist) || err == nil && id != r.ID {
		return nil
	}
	return os.Remove(link)
}

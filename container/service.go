package container

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/journal"
	"github.com/hostcompute/hcs/internal/state"
	"github.com/hostcompute/hcs/internal/sys"
	"github.com/hostcompute/hcs/internal/userns"
	"github.com/hostcompute/hcs/internal/wire"
	"github.com/hostcompute/hcs/rootfs"
)

// Config says where a service keeps its systems and what it starts them with.
type Config struct {
	// Root is the durable directory: records, logs, names. Run is the one that
	// may be gone after a boot: sockets and what a running system needs. Both are
	// made if they are missing.
	Root, Run string
	// Layers is the store that Spec.Layers names layers of; scratch layers are
	// made there too.
	Layers *rootfs.Store
	// Runtime is "native", for the project's own starter, or the name or path of
	// an OCI runtime. Empty: the native one where the kernel has what it needs,
	// else crun, else runc.
	Runtime string
	// Libexec is the directory of the programs hcs-shim and hcs-agent. Empty: the
	// directory of this program, then $PATH, then /usr/local/libexec/hcs and
	// /usr/libexec/hcs.
	Libexec string
	// CgroupParent is the control group that a group of this Root's, and in it
	// the systems' own, are made in. Empty: /hcs. In a user namespace systems have
	// no control groups, and so neither limits nor counters, unless its owner may
	// make them there.
	CgroupParent string
	// Endpoints brings network endpoints into systems. Without it none can have
	// any.
	Endpoints Endpoints
	// Logger takes what goes wrong where no error can tell. Nil discards it.
	Logger *slog.Logger
}

// Service makes and finds compute systems. Its methods may be called at once,
// also by several programs on the same directories.
type Service struct {
	cfg     Config
	group   string // control group of all systems: this root's own; empty where this user may have none
	records *state.Store[Record]
	// ephemeral are the same records: those of Ephemeral systems do not outlive
	// the machine, and need no sync.
	ephemeral *state.Store[Record]
	journal   *journal.Writer
}

// Open returns the service of the directories. There is nothing to close.
func Open(cfg Config) (*Service, error) {
	if cfg.CgroupParent == "" {
		cfg.CgroupParent = "/hcs"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, journal: journal.NewWriter(filepath.Join(cfg.Root, "events"))}
	if userns.IsInitial() || sys.MayMakeCgroup(cfg.CgroupParent) {
		root := sha256.Sum256([]byte(cfg.Root))
		s.group = cfg.CgroupParent + "/" + hex.EncodeToString(root[:6])
	}
	for _, dir := range []string{s.namesDir(), filepath.Join(cfg.Run, "containers"), s.aliveDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open container service: %w", err)
		}
	}
	sc := state.Config{Dir: filepath.Join(cfg.Root, "containers"), Kind: "container", Locks: filepath.Join(cfg.Run, "locks")}
	var err, eerr error
	s.records, err = state.Open[Record](sc)
	sc.Durability = state.Volatile
	s.ephemeral, eerr = state.Open[Record](sc)
	if err := errors.Join(err, eerr); err != nil {
		return nil, fmt.Errorf("open container service: %w", err)
	}
	return s, nil
}

func (s *Service) namesDir() string { return filepath.Join(s.cfg.Root, "names") }

func (s *Service) runDir(id string) string { return filepath.Join(s.cfg.Run, "containers", id) }

func (s *Service) cgroup(id string) string {
	if s.group == "" {
		return ""
	}
	return s.group + "/" + id
}

// Runtime returns what systems are started with.
func (s *Service) Runtime() (*Runtime, error) {
	return chooseRuntime(s.cfg.Runtime, filepath.Join(s.cfg.Run, "runtime.json"), againstNative())
}

// libexec finds one of our own programs.
func (s *Service) libexec(name string) (string, error) {
	var dirs []string
	if s.cfg.Libexec != "" {
		dirs = []string{s.cfg.Libexec}
	} else {
		if self, err := os.Executable(); err == nil {
			dirs = append(dirs, filepath.Dir(self))
		}
		dirs = append(dirs, "", "/usr/local/libexec/hcs", "/usr/libexec/hcs")
	}
	for _, dir := range dirs {
		file := filepath.Join(dir, name)
		if dir == "" {
			file, _ = exec.LookPath(name)
		}
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return filepath.Abs(file)
		}
	}
	return "", fault(errdefs.ErrNotFound, "find program %s: not in %s", name, strings.Join(slices.DeleteFunc(dirs, func(d string) bool { return d == "" }), ", "))
}

// Create makes a system that does not run yet. What the spec names of the
// host's must be there, or the error is of class ErrNotFound.
func (s *Service) Create(ctx context.Context, spec Spec) (_ *System, err error) {
	if err := spec.validate(); err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	if err := errors.Join(s.mayHave(&spec), s.mayMapIDs(spec.IDs), s.mayAttach(spec.Endpoints), spec.checkSources()); err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	r := &Record{ID: newID(), Created: time.Now().UTC(), Spec: spec}
	lock, err := s.records.Lock(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	creator, err := s.records.TryLock(creatorLock(r.ID))
	if err != nil {
		return nil, err
	}
	if err := s.create(ctx, r); err != nil {
		return nil, fmt.Errorf("create container %s: %w", r.Name(), errors.Join(err, creator.Unlock()))
	}
	created := &System{service: s, record: *r, creator: creator}
	if err := created.takeHandle(); err != nil {
		return nil, fmt.Errorf("create container %s: %w", r.Name(), errors.Join(err, creator.Unlock(), s.removeFiles(r)))
	}
	return created, nil
}

// mayHave reports what keeps a system of this user's from having the limits.
func (s *Service) mayHave(spec *Spec) error {
	limited := spec.Resources != Resources{} || slices.ContainsFunc(spec.Mounts, func(m Mount) bool { return m.isLimited() })
	if s.group != "" || !limited {
		return s.mayUse(spec.Resources.CPUSet)
	}
	return fault(errdefs.ErrNotImplemented, "limit its resources: this user may not write to the control group %s, which root can make and give to the user", s.cfg.CgroupParent)
}

// create makes, in this order, ids, scratch, record and name: a crash leaves
// ids and a scratch layer that no record names, or a nameless record, for Prune.
func (s *Service) create(ctx context.Context, r *Record) error {
	layers, err := s.layers(&r.Spec)
	if err != nil {
		return err
	}
	if err := s.claimIDs(ctx, r); err != nil {
		return err
	}
	if !r.Spec.WriteInPlace {
		if _, err := s.cfg.Layers.CreateScratch(ctx, r.ID, layers...); err != nil {
			return errors.Join(err, s.returnIDs(r))
		}
	}
	if err = s.putRecord(r); err == nil {
		err = s.claimName(r)
	}
	if err != nil {
		return errors.Join(err, s.removeFiles(r))
	}
	s.tell(wire.EventCreated, r)
	return nil
}

// layers finds the layers that a system is made of, lowest first.
func (s *Service) layers(spec *Spec) ([]*rootfs.Layer, error) {
	list := make([]*rootfs.Layer, len(spec.Layers))
	for i, id := range spec.Layers {
		l, err := s.cfg.Layers.Layer(id)
		if err != nil {
			return nil, err
		}
		list[i] = l
	}
	return list, nil
}

func (s *Service) putRecord(r *Record) error {
	if r.Spec.Ephemeral {
		return s.ephemeral.Put(r.ID, *r)
	}
	return s.records.Put(r.ID, *r)
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// claimName makes a symbolic link from the name to the id: only one can. A
// link to a system that is gone is taken over.
func (s *Service) claimName(r *Record) error {
	link := filepath.Join(s.namesDir(), r.Name())
	for range 3 {
		err := os.Symlink(r.ID, link)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		owner, err := os.Readlink(link)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if !s.isNobody(owner) {
			return fault(errdefs.ErrAlreadyExists, "the name is taken by container %s", ShortID(owner))
		}
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fault(errdefs.ErrUnavailable, "the name is fought for")
}

// Open finds a system by name, by id, or by the beginning of an id that no
// other has.
func (s *Service) Open(_ context.Context, ref string) (*System, error) {
	id, err := s.resolve(ref)
	if err != nil {
		return nil, err
	}
	r, err := s.records.Get(id)
	if err != nil {
		if errdefs.IsNotFound(err) {
			err = noSuch(ref)
		}
		return nil, err
	}
	system := &System{service: s, record: r}
	if err := system.takeHandle(); err != nil {
		return nil, system.wrap("open", err)
	}
	return system, nil
}

func noSuch(ref string) error {
	return fault(errdefs.ErrNotFound, "no such container: %q", ref)
}

func (s *Service) resolve(ref string) (string, error) {
	if state.CheckID("container", ref) != nil {
		return "", noSuch(ref)
	}
	if id, err := os.Readlink(filepath.Join(s.namesDir(), ref)); err == nil && state.CheckID("container", id) == nil {
		return id, nil
	}
	if len(ref) == 2*16 {
		return ref, nil
	}
	entries, err := os.ReadDir(filepath.Join(s.cfg.Root, "containers"))
	if err != nil {
		return "", err
	}
	var ids []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ref) && e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	switch len(ids) {
	case 0:
		return "", noSuch(ref)
	case 1:
		return ids[0], nil
	}
	return "", fault(errdefs.ErrInvalidArgument, "container %q: %d ids begin like this", ref, len(ids))
}

// Systems returns all systems, the oldest first. The error tells of records
// that cannot be read; the others are returned all the same.
func (s *Service) Systems(context.Context) ([]*System, error) {
	objects, err := s.records.List()
	list := make([]*System, len(objects))
	for i, o := range objects {
		list[i] = &System{service: s, record: o.Record}
	}
	slices.SortFunc(list, func(a, b *System) int { return a.record.Created.Compare(b.record.Created) })
	return list, err
}

// Pruned says what Prune removed.
type Pruned struct {
	Containers []string // names of systems
	Leftovers  []string // paths that belonged to none
}

// Prune removes systems that have stopped, lost ones with them, and whatever
// was left behind by programs that died. A system that is being created or
// started meanwhile is left alone.
func (s *Service) Prune(ctx context.Context) (Pruned, error) {
	var p Pruned
	errs := []error{s.pruneLeftovers(&p)} // damaged records among them
	systems, err := s.Systems(ctx)
	errs = append(errs, err)
	for _, system := range systems {
		switch err := system.deleteIfIdle(ctx); {
		case err == nil:
			p.Containers = append(p.Containers, system.Name())
		case !errors.Is(err, errBusy) && !errdefs.IsNotFound(err):
			errs = append(errs, err)
		}
	}
	errs = append(errs, s.pruneNames(&p), s.pruneEndpoints(ctx, &p), s.pruneParents())
	return p, errors.Join(errs...)
}

// pruneLeftovers removes what has no record: scratch layers, run directories,
// control groups, names.
func (s *Service) pruneLeftovers(p *Pruned) error {
	var errs []error
	for _, id := range s.strays() {
		lock, err := s.records.TryLock(id)
		if err != nil {
			continue // being created
		}
		if ok, err := s.pruneStray(id); ok || err != nil {
			errs = append(errs, err)
			p.Leftovers = append(p.Leftovers, id)
		}
		errs = append(errs, lock.Unlock())
	}
	_, err := s.records.Prune()
	return errors.Join(append(errs, err)...)
}

// pruneStray removes what bears an id without a readable record, unless a shim
// answers for it. The id's lock is held.
func (s *Service) pruneStray(id string) (removed bool, err error) {
	r := Record{ID: id}
	_, err = s.records.Get(id)
	damaged := errdefs.IsDataLoss(err)
	if !errdefs.IsNotFound(err) && !damaged {
		return false, nil
	}
	system := System{service: s, record: r}
	if answers, err := system.answers(); err != nil || answers {
		return false, err
	}
	err = errors.Join(s.cleanUp(&r), s.removeFiles(&r))
	if damaged && err == nil {
		s.tell(wire.EventDeleted, &r)
	}
	return true, err
}

// Discard ends and removes a system that Open finds and cannot read, as its
// record is damaged. One that is sound is refused, with class
// ErrFailedPrecondition: Terminate and Delete are for that.
func (s *Service) Discard(ctx context.Context, ref string) (err error) {
	id, err := s.resolve(ref)
	if err != nil {
		return err
	}
	damaged := &System{service: s, record: Record{ID: id}}
	fail := func(err error) error { return damaged.wrap("discard", err) }
	switch _, err := s.records.Get(id); {
	case err == nil:
		return fail(fault(errdefs.ErrFailedPrecondition, "its record is sound"))
	case errdefs.IsNotFound(err):
		return noSuch(ref)
	}
	if err := damaged.endShim(ctx); err != nil {
		return fail(err)
	}
	lock, err := s.records.Lock(ctx, id)
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	removed, err := s.pruneStray(id)
	if err == nil && !removed {
		err = errBusy
	}
	if err == nil {
		_, err = s.dropNames(func(owner string) bool { return owner == id })
	}
	if err == nil {
		err = s.detach(ctx, id, nil)
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// strays lists the ids that something of this root bears, and no readable
// record.
func (s *Service) strays() []string {
	var ids []string
	if scratches, err := s.cfg.Layers.Scratches(); err == nil {
		for _, sc := range scratches {
			ids = append(ids, sc.ID())
		}
	}
	for _, dir := range []string{filepath.Join(s.cfg.Run, "containers"), s.aliveDir(), filepath.Join(s.cfg.Root, "containers")} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			ids = append(ids, e.Name())
		}
	}
	if cg, err := sys.NewCgroup(s.group); err == nil {
		names, _ := cg.Children()
		ids = append(ids, names...)
	}
	slices.Sort(ids)
	return slices.DeleteFunc(slices.Compact(ids), func(id string) bool {
		if state.CheckID("container", id) != nil {
			return true
		}
		_, err := s.records.Get(id)
		return !errdefs.IsNotFound(err) && !errdefs.IsDataLoss(err)
	})
}

// pruneNames removes what bears a name and leads to no record: also what is
// no link, or one to something else than an id, which nobody here makes.
func (s *Service) pruneNames(p *Pruned) error {
	removed, err := s.dropNames(s.isNobody)
	p.Leftovers = append(p.Leftovers, removed...)
	if _, serr := os.Stat(s.idsDir()); serr == nil {
		err = errors.Join(err, s.dropIDs())
	}
	return err
}

// isNobody reports whether a name's owner, which is empty for what is no link,
// has no record.
func (s *Service) isNobody(owner string) bool {
	if state.CheckID("container", owner) != nil {
		return true
	}
	_, err := s.records.Get(owner)
	return errdefs.IsNotFound(err)
}

// dropNames removes the names of those owners, and returns the links.
func (s *Service) dropNames(of func(owner string) bool) (removed []string, err error) {
	return s.dropLinks(s.namesDir(), of)
}

// dropLinks is dropNames for links to ids in any directory.
func (s *Service) dropLinks(dir string, of func(owner string) bool) (removed []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range entries {
		link := filepath.Join(dir, e.Name())
		owner, err := os.Readlink(link)
		if errors.Is(err, fs.ErrNotExist) || !of(owner) {
			continue
		}
		switch err := os.Remove(link); {
		case err == nil:
			removed = append(removed, link)
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	return removed, errors.Join(errs...)
}

// pruneParents removes the groups that the systems' are in, if none is left.
// Who makes one meanwhile makes these again.
func (s *Service) pruneParents() error {
	if runtime.GOOS != "linux" || s.group == "" {
		return nil
	}
	for _, path := range []string{s.group, s.cfg.CgroupParent} {
		cg, err := sys.NewCgroup(path)
		if err != nil {
			return err
		}
		err = cg.RemoveEmpty()
		if errors.Is(err, fs.ErrPermission) && path == s.cfg.CgroupParent {
			return nil // somebody else made it, for us to have groups in
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cleanUp ends what is left of a system whose shim is gone.
func (s *Service) cleanUp(r *Record) error {
	cg, err := sys.NewCgroup(s.cgroup(r.ID))
	if err != nil {
		return err
	}
	if cg.Exists() {
		err = errors.Join(cg.Kill(killTimeout), cg.Remove())
	}
	if rerr := os.Remove(s.alive(r.ID)); !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	if _, serr := os.Lstat(s.runDir(r.ID)); errors.Is(serr, fs.ErrNotExist) {
		return err // RemoveAll of nothing fails on a read-only file system
	}
	return errors.Join(err, os.RemoveAll(s.runDir(r.ID)))
}

// removeFiles removes all that is kept of a system, the record last: as long
// as it is there, what is left can be found.
func (s *Service) removeFiles(r *Record) error {
	var errs []error
	if sc, err := s.cfg.Layers.OpenScratch(r.ID); err == nil {
		errs = append(errs, sc.Remove())
	} else if !errdefs.IsNotFound(err) {
		errs = append(errs, err)
	}
	errs = append(errs, s.dropName(r.Name(), r.ID), s.returnIDs(r), removeDir(s.records.Dir(r.ID)))
	return errors.Join(errs...)
}

// removeDir removes a system's directory, in which a shim may still be making a
// file: one whose client was killed after it had said what to start. It ends
// when it finds the directory gone. The record goes first: without its status
// the system would be one that never ran.
func removeDir(dir string) error {
	const attempts = 10
	if err := os.Remove(filepath.Join(dir, state.RecordName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := os.RemoveAll(dir)
	for n := 0; n < attempts && errors.Is(err, syscall.ENOTEMPTY); n++ {
		err = os.RemoveAll(dir)
	}
	return err
}

package rootfs

import (
	"errors"

	"github.com/hostcompute/hcs/layer"
)

// aside is what an applier knows that leaves the layer's order: writers make small files, too, and hard links are made when
// the files are there. That is for a tree that was empty, and whose hard links name things that the layer brought before.
//
// The order matters only where a name comes twice, and where a name leads through a symbolic link to nowhere: then what was
// left aside is done first.
type aside struct {
	known *nameSet // all names that there are, or will be
	links []asideLink

	applier *applier
}

type asideLink struct{ name, target string }

// newAside returns an empty one, which the caller closes.
func newAside() *aside { return &aside{known: newNameSet(nil)} }

func (s *aside) close() error { return s.known.close() }

// done does what was left aside for whoever looks at the tree between two entries, and says whether the tree is as the layer
// has it so far: it is not after a writer has failed, which ends the layer soon.
func (s *aside) done() (bool, error) {
	err := s.applier.settle()
	return err == nil && !s.applier.writers.failed.Load(), err
}

// fresh says whether a name may be left aside: there is such a thing as leaving aside, and the name is a new one, which is noted.
func (a *applier) fresh(dir *dirHandle, last string) (bool, error) {
	if a.aside == nil {
		return false, nil
	}
	return a.aside.known.add(nameID{dir.id, last})
}

// claim is for whoever is about to make last in dir in the layer's order: nothing of that name is left aside then. Of all
// directories only dir stays open until the next entry.
func (a *applier) claim(dir *dirHandle, last string) error {
	if a.aside == nil {
		return nil
	}
	if fresh, err := a.aside.known.add(nameID{dir.id, last}); err != nil || fresh {
		return err
	}
	dir.hold()
	err := a.settle()
	a.dirs.leaving = append(a.dirs.leaving, dir)
	return err
}

// settle does what was left aside. Where a writer failed, its error is left to who waits for them all.
func (a *applier) settle() error {
	if a.aside == nil {
		return nil
	}
	a.writers.settle()
	if a.writers.failed.Load() {
		return nil
	}
	links := a.aside.links
	a.aside.links = nil
	for _, l := range links {
		if err := a.linkAside(l); err != nil {
			return entryError(l.name, err)
		}
	}
	return nil
}

func (a *applier) linkAside(l asideLink) error {
	if err := a.dirs.sweep(); err != nil {
		return err
	}
	parent, last, err := a.existing(l.name)
	if err != nil {
		return err
	}
	return a.linkNow(&layer.Entry{Name: l.name, Link: l.target}, parent, last)
}

// keepOrder ends the leaving aside.
func (a *applier) keepOrder() error {
	err := a.settle()
	a.aside = nil
	return err
}

// create makes a file that was left aside.
func (a *applier) create(j *job) error {
	if j.dir == nil {
		return nil
	}
	file, err := j.dir.Create(j.name, a.owner.createMode(j.entry))
	if releaseErr := j.dir.release(); err == nil && releaseErr != nil {
		err = errors.Join(releaseErr, file.Close())
	}
	j.file = file
	return err
}

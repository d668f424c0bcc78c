package inroot

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/hostcompute/hcs/internal/sys"
)

// maxLinks is how many symbolic links a name may lead through: the kernel's own limit (MAXSYMLINKS in
// include/linux/namei.h), so that both ways of resolution agree.
const maxLinks = 40

// ending says how the last component is opened, and what becomes of missing ones.
type ending struct {
	flags int  // as for sys.OpenAt
	mkdir bool // missing directories are made, the last one too, with mode
	mode  uint32
}

// walker resolves a name component by component. It holds the descriptors of all directories on the way, so that ".."
// means the directory it came from, wherever that was moved meanwhile, and the root has nothing above it.
type walker struct {
	stack []int    // the root first; that one is not the walker's own
	todo  []string // components still to go, in order
	links int      // symbolic links followed so far
	dir   bool     // the name ended in a slash or dot: its last component has to be a directory
	ending
}

// walkTo resolves name and opens it.
func (r *Root) walkTo(name string, end ending) (int, error) {
	if name == "" {
		return -1, fs.ErrNotExist // as the kernel has it
	}
	w := walker{stack: []int{r.dir.fd}, ending: end}
	defer w.pop(-1)
	w.push(name)
	for len(w.todo) > 0 {
		component := w.todo[0]
		w.todo = w.todo[1:]
		if component == ".." {
			w.pop(1)
			continue
		}
		last := len(w.todo) == 0 && !w.dir
		done, err := w.step(component, last)
		if err != nil {
			return -1, err
		}
		if done && last {
			return sys.OpenAt(w.top(), component, w.flags|sys.NoFollow, 0)
		}
	}
	return sys.OpenAt(w.top(), ".", w.flags, 0)
}

// push puts the components of a name or link target before those still to go.
func (w *walker) push(name string) {
	if strings.HasPrefix(name, "/") {
		w.pop(-1)
	}
	var components []string
	for c := range strings.SplitSeq(name, "/") {
		if c != "" && c != "." {
			components = append(components, c)
		}
	}
	if len(w.todo) == 0 && (strings.HasSuffix(name, "/") || strings.HasSuffix("/"+name, "/.")) {
		w.dir = true
	}
	w.todo = append(components, w.todo...)
}

// step looks at one component. It enters a directory, and puts a symbolic link's target before what is still to go. done
// means that the component is no symbolic link; the last one is not entered.
func (w *walker) step(component string, last bool) (done bool, err error) {
	fd, err := w.look(component)
	if err != nil {
		return false, err
	}
	entered := false
	defer func() {
		if !entered {
			err = errors.Join(err, sys.Close(fd))
		}
	}()
	st, err := sys.StatFD(fd)
	switch {
	case err != nil:
		return false, err
	case st.IsSymlink():
		return false, w.follow(fd)
	case last:
		return true, nil
	case !st.IsDir():
		return false, sys.ErrNotDir
	}
	w.stack, entered = append(w.stack, fd), true
	return true, nil
}

// look opens a component without touching it, after making it where that is asked for.
func (w *walker) look(component string) (int, error) {
	fd, err := sys.OpenAt(w.top(), component, sys.OpenPath, 0)
	if !w.mkdir || !errors.Is(err, fs.ErrNotExist) {
		return fd, err
	}
	if err := sys.MkdirAt(w.top(), component, w.mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return -1, err
	}
	return sys.OpenAt(w.top(), component, sys.OpenPath, 0)
}

func (w *walker) follow(link int) error {
	if w.links++; w.links > maxLinks {
		return sys.ErrTooManyLinks
	}
	if err := sys.CheckNoMagicLink(link); err != nil {
		return err
	}
	target, err := sys.ReadLinkAt(link, "")
	if err != nil {
		return err
	}
	w.push(target)
	return nil
}

func (w *walker) top() int { return w.stack[len(w.stack)-1] }

// pop leaves n directories, or all for -1; never the root.
func (w *walker) pop(n int) {
	for ; n != 0 && len(w.stack) > 1; n-- {
		_ = sys.Close(w.top()) // opened with O_PATH: nothing can be lost
		w.stack = w.stack[:len(w.stack)-1]
	}
}

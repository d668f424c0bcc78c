package rootfs_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostcompute/hcs/internal/mtree"
	"github.com/hostcompute/hcs/rootfs"
)

// TestChangesRandom changes random trees in random ways, and compares what Changes finds with what a look at the whole tree
// before and afterwards tells. A manifest in another order, or one that can only be read once, says the same.
func TestChangesRandom(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	for i := range 60 {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		top := t.TempDir()
		dir := filepath.Join(top, "tree")
		must(t, os.Mkdir(dir, 0o755))
		for range 20 {
			changeTree(t, random, dir)
		}
		settle(t, dir)
		var manifest bytes.Buffer
		must(t, rootfs.WriteManifest(t.Context(), dir, &manifest))
		before := listing(t, dir, view{times: true})
		for range random.IntN(12) {
			changeTree(t, random, dir)
		}
		settle(t, dir)
		want := changesBetween(before, listing(t, dir, view{times: true}))
		for name, r := range map[string]io.Reader{
			"in order": bytes.NewReader(manifest.Bytes()),
			"shuffled": bytes.NewReader(shuffled(t, random, manifest.Bytes())),
			"once":     io.MultiReader(bytes.NewReader(manifest.Bytes())),
		} {
			changes, err := rootfs.Changes(t.Context(), dir, r, rootfs.ChangeOptions{})
			must(t, err)
			if !slices.Equal(changes, want) {
				t.Fatalf("seed %d, tree %d, manifest %s:\n   %v\nwant %v\n%s", seed, i, name, changes, want, manifest.Bytes())
			}
		}
		must(t, os.RemoveAll(top))
	}
}

// changeTree makes, rewrites, replaces or removes something. Names sort differently with and without the slash behind them.
func changeTree(t *testing.T, random *rand.Rand, dir string) {
	names := []string{"a", "a-", "a.b", "b", "c"}
	name := dir
	for range 1 + random.IntN(3) {
		name = filepath.Join(name, names[random.IntN(len(names))])
	}
	if parent, err := os.Stat(filepath.Dir(name)); err != nil || !parent.IsDir() {
		return
	}
	st, err := os.Lstat(name)
	isDir := err == nil && st.IsDir()
	switch k := random.IntN(10); {
	case k < 4 && !isDir:
		must(t, os.WriteFile(name, fmt.Append(nil, random.IntN(100)), 0o644))
	case k < 7 && !isDir:
		must(t, os.RemoveAll(name))
		must(t, os.Mkdir(name, 0o755))
	case k < 8:
		must(t, os.RemoveAll(name))
	default:
		must(t, os.RemoveAll(name))
		must(t, os.WriteFile(name, fmt.Append(nil, random.IntN(100)), 0o600))
	}
}

// settle gives everything the same time, so that it is not a change that something was done in a directory.
func settle(t *testing.T, dir string) {
	must(t, filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(name, time.Unix(7, 0), time.Unix(7, 0))
	}))
}

// changesBetween compares two listings.
func changesBetween(before, after map[string]string) []rootfs.Change {
	isDir := func(tree map[string]string, name string) bool { return strings.HasPrefix(tree[name], "dir ") }
	var changes []rootfs.Change
	for name, line := range after {
		if was, known := before[name]; !known {
			changes = append(changes, rootfs.Change{Name: name, Kind: rootfs.Added})
		} else if was != line {
			changes = append(changes, rootfs.Change{Name: name, Kind: rootfs.Modified})
		}
	}
	for name := range before {
		if _, known := after[name]; !known && isDir(after, path.Dir(name)) {
			changes = append(changes, rootfs.Change{Name: name, Kind: rootfs.Deleted})
		}
	}
	slices.SortFunc(changes, func(a, b rootfs.Change) int { return strings.Compare(a.Name, b.Name) })
	return changes
}

// shuffled is a manifest with the same entries, by their paths, in any order.
func shuffled(t *testing.T, random *rand.Rand, manifest []byte) []byte {
	m, err := mtree.Read(bytes.NewReader(manifest))
	must(t, err)
	names := slices.Sorted(maps.Keys(m.Entries))
	random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	var b bytes.Buffer
	for _, name := range names {
		e := m.Entries[name]
		fmt.Fprintf(&b, "./%s type=%s mode=%04o uid=%d gid=%d nlink=%d size=%d time=%d.0", name, e.Type, e.Mode, e.UID, e.GID, e.Nlink, e.Size, e.Seconds)
		if e.Type == mtree.File {
			fmt.Fprintf(&b, " sha256=%x", e.SHA256)
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

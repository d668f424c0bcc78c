// Package inroot is the only way to a path inside a tree that somebody else may control: a layer that is being unpacked,
// a container's file system.
//
// A [Root] resolves names as a process would whose root directory it is: absolute names and symbolic links start at the
// root, ".." stops there, magic links as in /proc are refused. It does so with openat2(2), or, where that is missing, by a
// walk that opens one component at a time. Both follow at most 40 symbolic links, the kernel's own limit.
//
// What then happens to an object happens relative to the descriptor of its parent, a [Dir], and to a single name that is
// never followed. So whoever swaps a component for a symbolic link meanwhile gains nothing.
//
// It is not [os.Root], which refuses absolute symbolic links, knows no devices and no extended attributes. It does not
// stop whoever controls the tree from mounting or from moving directories out of it.
package inroot

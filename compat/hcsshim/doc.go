// Package hcsshim is the API of the Windows Host Compute System under its own names, on Linux: a program written against
// github.com/Microsoft/hcsshim builds with this package in its place.
//
// What stands is the layer half, docs/hcsshim.md tells how far: layers are directories, named by DriverInfo.HomeDir and an id, in the form that package
// rootfs describes. Where versions of hcsshim differ, the newest whose documents this project follows (0.8) decides; the
// comment of a name says what older ones had.
//
// Errors are those that Windows returns: *HcsError with a syscall.Errno in Err, whose value is Windows' code. Print the
// HcsError and not the syscall.Errno: the latter's text is that of another error on systems that are not Windows.
//
// The package is thin: layers are package rootfs's work, containers package container's.
package hcsshim

// Package hcsshim is the API of the Windows Host Compute System under its own names, on Linux: a program written against
// github.com/Microsoft/hcsshim builds with this package in its place.
//
// What stands are layers and containers; docs/hcsshim.md tells how far, and networks come later. Layers are directories,
// named by DriverInfo.HomeDir and an id, in the form that package rootfs describes. Containers are those of the command hcs,
// in the state directories that HCS_ROOT and HCS_RUN name, and have the same names there. Where versions of hcsshim differ,
// the newest whose documents this project follows (0.8) decides; the comment of a name says what older ones had.
//
// Errors are those that Windows returns: *HcsError, *ContainerError or *ProcessError with a syscall.Errno in Err, whose value
// is Windows' code. Print the error and not the syscall.Errno: the latter's text is that of another error on systems that are
// not Windows.
//
// The package is thin: layers are package rootfs's work, containers package container's.
package hcsshim

//go:generate go run ../../scripts/aliases ../.. ../replace/hcsshim

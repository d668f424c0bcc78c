// Package disk reads and writes disk images: raw ones, VHD (fixed, dynamic) and VHDX (fixed, dynamic, differencing), and
// the GUID partition table inside of them. All are a Disk: bytes by offset, to read, write and grow.
//
// It is not a virtual machine's block layer: there is no cache but for the tables, and one process at a time writes an
// image. Nor does it write file systems: NTFS volumes are made by the programs of ntfs-3g.
//
// An image that was opened for writing is at any instant the one that it was at the last Sync, but for blocks that it
// already had, which are overwritten in place as on a real disk. VHDX images get there by their log, which Open replays. An
// image that is being created is none before its first Sync or Close.
//
// Images are hostile until proved otherwise. What the format does not allow is an error of class
// errdefs.ErrInvalidArgument that names the structure and its offset, what it allows and this package does not do is one of
// class errdefs.ErrNotImplemented, and memory stays within a few megabytes but for one bit per megabyte of image.
//
// The formats are described, with their sources, in docs/formats/vhd.md and docs/formats/vhdx.md.
//
// [errdefs.ErrInvalidArgument]: https://pkg.go.dev/github.com/containerd/errdefs#ErrInvalidArgument
package disk

// Package layer reads and writes image layers: streams of entries that say
// what one layer adds to, changes in and takes from the tree below it.
//
// [Reader] and [Writer] speak the tar encoding of OCI change sets (PAX, GNU,
// ustar and v7 archives; whiteouts; extended attributes; sparse files).
// [OpenBlob] and [CreateBlob] put compression and both digests of a layer, the
// blob's and the diffID, around them while the bytes pass.
//
// [ReadOptions] choose between two encodings. Windows images have the NT one:
// Windows' metadata in PAX records, below Files, Hives and UtilityVM. The
// caller chooses, by the system that the image tells, because a stream does
// not say it for sure and the two give one name different meanings. Both give
// the same Entry. The [Writer] needs no choice: an entry with NT metadata is
// written so, as Windows' own exporter does it. What is malformed in layers
// that known programs make for Windows is mended with a [Warning] or, if the
// options are strict, refused. [WindowsTree] makes Windows layers of plain
// trees. docs/formats/windows-layer.md has the format.
//
// A Reader is the door at which names, owners and sizes are judged: what it
// returns keeps the invariant that [Entry] states, and what does not is an
// error of class [errdefs.ErrInvalidArgument], or of class
// [errdefs.ErrResourceExhausted] where one of the [Limits] is exceeded.
//
// A layer that is read and written without change has the same bytes again,
// and so the same diffID, whatever program wrote it first.
//
// The package touches no file system: unpacking, diffing and mounting are
// package rootfs's work, images and their manifests package image's.
//
// [errdefs.ErrInvalidArgument]: https://pkg.go.dev/github.com/containerd/errdefs#ErrInvalidArgument
// [errdefs.ErrResourceExhausted]: https://pkg.go.dev/github.com/containerd/errdefs#ErrResourceExhausted
package layer

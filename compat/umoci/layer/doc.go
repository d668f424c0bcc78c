// Package layer has the names of umoci's package of layers,
// github.com/opencontainers/umoci/oci/layer, so that a program that uses it
// builds with this import path in its place. What they do is done by packages
// bundle and rootfs.
//
// Two forms of umoci's API are around: that of 2016, in which UnpackLayer,
// UnpackManifest and GenerateLayer have no options, and today's. Where they
// differ it is today's that is here; with nil for the options it does what the
// older one did.
//
// What differs from umoci on purpose:
//
//   - Everything happens relative to open directories, so that nobody who
//     changes the tree meanwhile can lead the program out of it.
//   - A layer with names that cannot be, with an owner that is not mapped, or
//     beyond the limits of package layer is refused. ".wh." alone is an error.
//   - UnpackManifest and UnpackRootfs make the tree in a private directory and
//     give it its name when it is complete, unless there is a callback or a
//     layer to start from.
//   - A path through something that is no directory is an error, or replaces
//     it, as package rootfs says, and never goes where a link leads out.
package layer

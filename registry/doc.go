// Package registry reads images from registries and writes images to them.
//
// [Open] gives an image.Source of one image, or of one index of images, in a
// registry, and [Create] an image.Target that puts images there. Transfers
// that break or stand still are continued where they stopped; what answers
// with "later" is asked again, less and less often. Credentials are those of
// docker's configuration, with its helpers.
//
// What the package is not: it does not keep images (that is image), and it
// neither lists nor deletes what a registry has. The protocol's
// authentication and its uploads are those of oras-go; content is held
// against its descriptors by package image.
//
// The protocol is the OCI distribution specification 1.1
// (https://github.com/opencontainers/distribution-spec).
package registry

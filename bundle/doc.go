// Package bundle turns images into OCI runtime bundles and back.
//
// Unpack makes a bundle of an image: a directory with config.json for an OCI
// runtime, rootfs/ for it to run in, and, so that it can be packed again,
// umoci.json, which says where it came from, and an mtree manifest of how
// rootfs/ was. Repack makes a layer of what has changed since, and an image
// with that layer. Insert makes a layer of any file or directory. Squash,
// Convert and Diff are further things that take an image's layers as a whole.
//
// The layout of a bundle is that of umoci
// (https://github.com/opencontainers/umoci), so that either program packs what
// the other has unpacked.
//
// What the package is not: it finds no images (that is package image), unpacks
// nothing by itself (that is package rootfs), and starts nothing.
package bundle

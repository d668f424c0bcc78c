// Package image reads, writes and keeps OCI images.
//
// A [Source] gives the blobs of a place where images are: an OCI layout
// directory, an OCI archive, a docker archive (what "docker save" writes), or
// the local [Store]. [Resolve] finds one image in a source, by tag and
// platform, and checks everything on the way: the digest, the size and the
// media type of every descriptor. [Copy] writes an image to a layout or to an
// archive; [Store.Load] brings it into the local store, handing each layer to
// the unpacker while its bytes pass. [Process] turns an image's configuration
// into a process of the OCI runtime specification.
//
// Nothing that an image says is believed before it is checked. Names in it
// never become paths: blobs are found by digests whose form has been judged,
// blob files are opened without following links and must be regular, and
// documents are limited to 4 MiB.
//
// What the package is not: it does not unpack layers (that is rootfs), it
// does not look into them (that is layer), and it does not talk to
// registries (that is registry).
//
// Formats: the OCI image specification 1.1
// (https://github.com/opencontainers/image-spec) and docker's image
// specification 1.2 for archives
// (https://github.com/moby/moby/blob/master/image/spec/v1.2.md).
package image

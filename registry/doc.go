// Package registry reads images from registries and writes images to them.
//
// [Open] gives an image.Source of one image, or of one index of images, in a
// registry, and [Create] an image.Target that puts images there. Transfers
// that break or stand still are continued where they stopped. Credentials are
// those of docker's configuration, with its helpers; [Login] and [Logout]
// change it.
//
// There is one policy for what fails and may go well a little later: answers
// of 408, 429 and 5xx but 501, and connections that break or stand still. A
// question, an upload or a download is tried six times in a row, after pauses
// of 0.2, 0.4, 0.8, 1.6 and 3.2 seconds, or as long as the registry asks for
// in Retry-After, but never longer than a minute. A download that got
// somewhere, by 64 KiB, begins to count anew. A context that ends ends pauses
// and transfers at once. Nothing else tries anything again, but net/http,
// which has another connection if an idle one turns out to be dead.
//
// What the package is not: it does not keep images (that is image), and it
// neither lists nor deletes what a registry has. The protocol's
// authentication and its uploads are those of oras-go; content is held
// against its descriptors by package image.
//
// The protocol is the OCI distribution specification 1.1
// (https://github.com/opencontainers/distribution-spec).
package registry

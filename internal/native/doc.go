// Package native makes a container from inside: it is what the first process
// does, in the namespaces that it was born in and before anything of the
// container's runs, where no OCI runtime does it.
//
// It executes a wire.Build and decides nothing: what a container is to look
// like is the library's business, and control groups are the shim's. It is
// part of the agent, whose size and start every container pays for, so it
// avoids the heavy parts of the standard library and calls the kernel itself,
// without internal/sys.
//
// The order of the steps is what keeps a hostile image at bay. All that comes
// from the host is opened first; then the container's root becomes the
// process's own and the host's tree is let go, before anything in the
// container's tree is looked at. Whatever its links say, they cannot lead
// back.
package native

// This module stands in for hcsshim: a program's go.mod that replaces github.com/Microsoft/hcsshim by this directory, and
// github.com/hostcompute/hcs by the repository's, needs no other change. See docs/hcsshim.md.
module github.com/Microsoft/hcsshim

go 1.26.0

require (
	github.com/Microsoft/go-winio v0.6.4
	github.com/hostcompute/hcs v0.0.0
)

require (
	github.com/containerd/errdefs v1.0.0 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/klauspost/pgzip v1.3.0 // indirect
	github.com/moby/profiles/seccomp v0.2.3 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
	github.com/opencontainers/runtime-spec v1.3.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/hostcompute/hcs => ../../..

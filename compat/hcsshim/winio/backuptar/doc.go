// Package backuptar moves files between tar streams in the form of Windows layers and Win32 backup streams, one at a time,
// under the names of go-winio's package, which has them for Windows alone. Programs feed LayerWriters and empty LayerReaders
// with it.
//
// Whole layers are package layer's work, which also mends and judges what it reads: what is here trusts the tar stream.
// docs/formats/windows-layer.md has the form.
package backuptar

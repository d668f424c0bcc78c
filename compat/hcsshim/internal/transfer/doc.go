// Package transfer turns the entries of a Windows layer into what hcsshim's LayerReader gives, a name, a FILE_BASIC_INFO and a
// Win32 backup stream for each file, and what its LayerWriter takes into entries.
//
// It neither knows how layers lie on disk nor where the entries come from or go to.
package transfer

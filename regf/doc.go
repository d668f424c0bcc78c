// Package regf reads, writes, merges and compares Windows registry hives.
//
// [Parse] and [Open] give a [Hive]: a view of the file's own bytes, whose keys
// and values are found when they are asked for. [Hive.Edit] gives a [Tree],
// which loads only the keys that are touched; [Tree.WriteTo] writes it as a
// compact hive of version 1.5, copying the rest cell by cell. [Replay] makes a
// dirty hive whole from its transaction logs.
//
// A layer of a Windows image holds deltas: hives with layered keys, whose
// tombstones and supersede marks say what they do to the hive below. [Merge]
// applies deltas to a hive and [Diff] makes one. [WriteText] prints hives and
// deltas as regedit's text, [ParseText] reads such text as edits.
//
// Whatever a file holds, reading it ends with an error of class [ErrCorrupt],
// [ErrUnsupported] or [ErrNotExist], which names the cell, in time and memory
// bounded by the file's size.
//
// The package knows nothing of layers on disk, of security descriptors' content
// and of the registry of a running system; those are the packages rootfs's and
// ntfs's, or nobody's.
package regf

// Package mtree reads and writes manifests of trees in the format of mtree(5), as far as image bundles use it: the keywords
// size, type, uid, gid, mode, link, nlink, tar_time, sha256digest and xattr, in the form that go-mtree 0.7 gives them
// (github.com/vbatts/go-mtree), whose command gomtree validates what a [Writer] makes.
//
// Beside that a manifest of ours has comments with what only the machine that wrote it can use: an object's inode and change
// time, which tell without reading it that it has not changed since.
//
// The package touches no file system and compares nothing.
package mtree

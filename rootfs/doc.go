// Package rootfs keeps layers on disk: it unpacks them, stacks and mounts them, and says what a container changed.
//
// A [Store] holds unpacked layers, one directory for each diffID, and scratch layers, which take what a container writes.
// Any number of processes may use one store at once; there is no daemon. [Store.Overlay] says how a scratch layer and the
// layers below it are mounted.
//
// [Apply] unpacks one layer into a tree, and [Diff] reads the upper directory of an overlay mount as a layer. Both work
// without a store. A tree that Apply works on, and one that Diff reads, may have been made by an enemy: all access goes
// through package inroot. What they do not stand is another process that changes the tree meanwhile; nothing outside of
// it is in danger then, but what comes out is undefined.
//
// [UnpackTree] unpacks all layers of an image as one tree, as [Apply] would one after the other, but from the top, so that
// every path is written once, and makes a manifest of the tree meanwhile. [Changes] compares such a tree with its manifest,
// and [EmitChanges] reads what changed as a layer.
//
// The package does not fetch layers, knows no images and starts nothing.
//
// On disk:
//
//	<dir>/layers/<algorithm>-<hex>/layer.json    what the layer is; there once the layer is complete
//	<dir>/layers/<algorithm>-<hex>/Files/        its tree, with whiteouts as overlayfs wants them
//	<dir>/layers/.tmp-<algorithm>-<hex>/         a layer on its way in or out
//	<dir>/layers/.empty/                         nothing, to stack a single layer on
//	<dir>/layers/.lock/                          one lock for each layer in work
//	<parent>/.hcs-unpack-<name>/                 a tree that becomes <parent>/<name> once it is complete
//	<dir>/scratch/<id>/record.json               what the scratch layer stands on
//	<dir>/scratch/<id>/{upper,work}/             overlayfs's directories
package rootfs

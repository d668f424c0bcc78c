// Package wclayer is the layer half of the Host Compute System by path, as hcsshim's package of this name has it inside.
//
// A layer is a directory in the form that package rootfs describes; a layer's parents are given nearest first.
package wclayer

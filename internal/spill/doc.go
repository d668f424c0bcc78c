// Package spill holds arrays that may become larger than the memory they ought to take. A [Store] keeps the blocks of its
// arrays that were used last, up to a limit, and the others in files. That memory is not the garbage collector's, which would
// let the heap grow by as much again.
//
// The package is no cache of anything, and what it writes is of use to nobody but the Store.
package spill

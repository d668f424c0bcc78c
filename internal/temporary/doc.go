// Package temporary makes private directories that last as long as a call does, and takes away those of calls that were
// killed. Whoever makes one clears the place of others first: what no living process holds the lock of is nobody's.
//
// It knows not what is in them. Where something may be mounted there, the caller tells how it is undone.
package temporary

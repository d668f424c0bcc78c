// Package userns makes a program of an ordinary user root: of a user
// namespace, in which it may mount, own files of several users and start
// containers, while it stays that user for everything outside of it
// (user_namespaces(7)).
//
// Every program enters a namespace of its own. They are equal, so that what
// one has made another can change: what a namespace maps is all that the
// kernel compares files' owners by.
//
// It keeps no process or file; a namespace goes with its last process. It does
// not start containers, and knows nothing of them.
package userns

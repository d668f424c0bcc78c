// Package container makes compute systems, containers in everyday words, and
// processes in them.
//
// A System is a record of what was asked for, a scratch layer, and, while it
// runs, a shim (internal/shim): a process of its own that survives whoever
// started it. A Service finds systems, its own or another program's, by what
// is on disk; there is no daemon. As on Windows, a system starts without a
// program of the user's in it; processes are created in it one by one. One of
// them may be the main process, whose end is the system's.
//
// The package knows layers as directories to mount. Images, and what they say
// about the process to run, are the caller's business.
package container

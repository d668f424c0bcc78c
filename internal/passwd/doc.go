// Package passwd finds users and groups in the texts of passwd(5) and group(5)
// files that somebody else wrote: an image's, a container's; and says what
// their programs are given where nothing says otherwise. The shim's and
// the agent's rooms may use it: it keeps to the standard library.
//
// It does not open files, which takes care of its own, and does not know of
// this machine's users.
package passwd

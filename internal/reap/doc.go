// Package reap starts child processes and waits for all that end: the ones it
// started, and the orphans that the kernel hands to a first process or a
// subreaper. It is the only one in its process to do so: os/exec beside it
// would lose its children to it, and it to them.
package reap

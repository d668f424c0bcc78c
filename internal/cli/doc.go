// Package cli is the command line of hcs: it reads arguments, calls the
// library, and shows what comes back. What it can do the library can do.
//
// Every command has a file of its own, with its options, their flags, and the
// function that runs it. The ways of docker's command line are kept where
// there is no reason against them: flags behind the image belong to the
// command, "-it" is two flags, "run" ends with the status of the process.
//
// A failure is one line on standard error. The exit status is then 125; 126
// for a program that cannot be run and 127 for one that is not there.
//
// It is started very often, as in "hcs exec", so that the time it takes to
// start is felt: nothing is compiled, opened or looked up before a command
// needs it.
package cli

// Package agent is the first process of every container: it starts the
// processes that the shim asks for, reaps whatever ends, and says so on the
// socket that it inherited. When the socket closes it exits, and the kernel
// ends the container with it.
//
// It runs inside, under the container's own limits and filters, beside
// programs that may be hostile: it holds no secret, its peer trusts nothing
// that it says, and it is small (standard library only, without fmt,
// encoding/json, net and os/exec).
package agent

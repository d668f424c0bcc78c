// Package shim is the supervisor of one compute system: the process that
// brings it to life, stays while it lives, and takes it down so that nothing
// is left. It survives the program that started it; any other finds it at its
// socket.
//
// It executes what a wire.Spec says and decides little: names, images and
// policies are the library's business. It trusts its clients, who may reach
// the socket only as the same user, and nothing that the agent says.
package shim

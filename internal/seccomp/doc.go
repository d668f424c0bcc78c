// Package seccomp turns a list of system calls, as the configuration of an OCI
// runtime has it, into a program for the kernel
// (https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp,
// seccomp(2)). It computes only: installing the program is the first process's
// business, and what is allowed is the list's.
package seccomp

//go:generate go run generate.go

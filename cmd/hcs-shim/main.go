// Command hcs-shim supervises one compute system; internal/shim says how. It
// is started by the library and not by hand.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"

	"github.com/hostcompute/hcs/internal/shim"
)

func main() { os.Exit(shim.Main()) }

// Command hcs-agent is the first process of a container; internal/agent says
// what it does. It is started by a shim and not by hand.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"

	"github.com/hostcompute/hcs/internal/agent"
)

func main() { os.Exit(agent.Main()) }

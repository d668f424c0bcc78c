// Command hcs manages images, layers and containers; internal/cli has its
// commands.
package main

import (
	"os"

	"github.com/hostcompute/hcs/internal/cli"
)

func main() { os.Exit(cli.Main()) }

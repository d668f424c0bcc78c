// Command hcs-registry is hcs with what speaks to registries; hcs becomes it
// for the commands that do.
package main

import (
	"os"

	"github.com/hostcompute/hcs/internal/registrycli"
)

func main() { os.Exit(registrycli.Main()) }

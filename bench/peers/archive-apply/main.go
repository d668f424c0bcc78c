// Command archive-apply unpacks layers into a directory with containerd's archive.Apply, as its unpacker does on Linux: the
// peer of a benchmark.
//
//	archive-apply DIR BLOB...
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: archive-apply DIR BLOB...")
		os.Exit(2)
	}
	for _, blob := range os.Args[2:] {
		if err := apply(os.Args[1], blob); err != nil {
			fmt.Fprintf(os.Stderr, "archive-apply: apply %s: %v\n", blob, err)
			os.Exit(1)
		}
	}
}

func apply(dir, blob string) error {
	f, err := os.Open(blob)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	r, err := compression.DecompressStream(f)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	_, err = archive.Apply(context.Background(), dir, r)
	return err
}

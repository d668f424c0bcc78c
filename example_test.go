package hcs_test

import (
	"context"
	"log"
	"os"

	"github.com/hostcompute/hcs"
	"github.com/hostcompute/hcs/container"
)

// Run a program in a container of an image, and remove the container.
func Example() {
	ctx := context.Background()
	check := func(err error) {
		if err != nil {
			log.Fatal(err)
		}
	}
	host, err := hcs.Open(hcs.Config{})
	check(err)
	c, err := host.Create(ctx, hcs.Spec{Image: "oci:.cache/images/busybox"})
	check(err)
	check(c.Start(ctx))
	p, err := c.CreateProcess(ctx, &container.ProcessSpec{Args: []string{"/bin/echo", "hello"}, Stdout: os.Stdout})
	check(err)
	_, err = p.Wait(ctx)
	check(err)
	check(c.Terminate(ctx))
	check(c.Delete(ctx))
	// Output: hello
}

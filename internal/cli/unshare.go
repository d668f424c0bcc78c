package cli

import (
	"cmp"
	"errors"
	"os"
	"os/exec"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
)

func newUnshare(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "unshare [COMMAND [ARG...]]",
		Short: "Run a command as root of the user namespace that your containers are in",
		Long: `Run a command, or a shell, as root of the user namespace that an ordinary
user's containers and layers are in: there it may look at, change and remove
the files of their users, and mount. Mounts go with the command.`,
		Example: `  hcs unshare ls -l ~/.local/share/hcs/layers
  hcs unshare chown 1000:1000 shared`,
		RunE: func(_ *cobra.Command, args []string) error { return runUnshare(a, args) },
	}
	c.Flags().SetInterspersed(false)
	return c
}

func runUnshare(a *app, args []string) error {
	if err := a.becomeRoot(); err != nil {
		return err
	}
	if len(args) == 0 {
		args = []string{cmp.Or(os.Getenv("SHELL"), "/bin/sh")}
	}
	class := error(errdefs.ErrPermissionDenied)
	path, err := exec.LookPath(args[0])
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		class = errdefs.ErrNotFound
	}
	if err == nil {
		err = syscall.Exec(path, args, os.Environ())
	}
	return notStarted{fault(class, "start %s: %w", args[0], err)}
}

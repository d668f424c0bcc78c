package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker. A program that was built without says what the go command noted in it.
var version = ""

func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// versionView has the names that docker's templates use of its client.
type versionView struct{ Version, GoVersion, Os, Arch string }

// versions are those of docker's two halves, which here are one, for templates.
type versions struct {
	versionView
	Client, Server versionView `json:"-"`
}

func newVersion(a *app) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "version",
		Short: "Show which version this is",
		Args:  takes(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			v := versionView{programVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
			switch format {
			case "":
				_, err := fmt.Fprintf(a.out, "hcs version %s, %s, %s/%s\n", v.Version, v.GoVersion, v.Os, v.Arch)
				return err
			case "json":
				format = "{{json .}}"
			}
			return templated(a.out, format, []versions{{v, v, v}})
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "json or a Go `template`; else a line")
	return c
}

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/container"
)

type topOptions struct{ listOptions }

func newTop(a *app) *cobra.Command {
	var o topOptions
	c := &cobra.Command{
		Use:   "top [flags] CONTAINER [PS-OPTION...]",
		Short: "Show the processes of a running container",
		Long: `Show the processes of a running container, by their numbers there, with the processor time and memory that each has used.

With options of ps(1) they are shown by that program of this machine, with the numbers that they have here.`,
		Example: `  hcs top web
  hcs top web -o pid,stat,wchan,args`,
		Args:              takes(1, -1, "a container"),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0], args[1:]) },
		ValidArgsFunction: a.completeContainers(isRunning),
	}
	o.listOptions.addFlags(c.Flags(), "show numbers only")
	c.Flags().SetInterspersed(false)
	return c
}

func (o *topOptions) run(ctx context.Context, a *app, ref string, ps []string) error {
	h, err := a.host() // which knows whether there are control groups
	if err != nil {
		return err
	}
	c, err := h.Containers().Open(ctx, ref)
	if err != nil {
		return err
	}
	defer c.Close()
	processes, err := c.Processes(ctx)
	if err != nil {
		return err
	}
	if len(ps) > 0 {
		return hostPs(ctx, a.out, ps, processes)
	}
	rows := make([]processRow, len(processes))
	for i := range processes {
		rows[i] = newProcessRow(&processes[i])
	}
	return list(a.out, o.listOptions, rows)
}

// processRow has the columns of "ps -f", and memory.
type processRow struct {
	UID, PID, PPID, HostPID int
	State, Started          string
	Time, Memory            string
	Command                 string
}

func (processRow) header() []string {
	return []string{"UID", "PID", "PPID", "STATE", "STARTED", "TIME", "MEMORY", "COMMAND"}
}

func (r processRow) cells() []string {
	return []string{
		strconv.Itoa(r.UID), strconv.Itoa(r.PID), strconv.Itoa(r.PPID), r.State, r.Started, r.Time, r.Memory, r.Command,
	}
}

func (r processRow) key() string { return strconv.Itoa(r.PID) }

func newProcessRow(p *container.ProcessDetails) processRow {
	r := processRow{
		UID: p.UID, PID: p.Pid, PPID: p.ParentPid, HostPID: p.HostPid, State: p.State, Time: cpuTime(p.User + p.System),
		Memory: binarySize(p.Resident), Command: printable(strings.Join(p.Args, " ")), Started: p.Started.Local().Format("Jan02 15:04:05"),
	}
	if len(p.Args) == 0 {
		r.Command = "[" + printable(p.Name) + "]"
	}
	return r
}

// printable keeps what a container's processes call themselves from moving the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// cpuTime shows hours, minutes and seconds as ps does.
func cpuTime(d time.Duration) string {
	s := int(d / time.Second)
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// hostPs runs ps(1) and shows its lines about the processes.
func hostPs(ctx context.Context, to io.Writer, options []string, processes []container.ProcessDetails) error {
	cmd := exec.CommandContext(ctx, "ps", options...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		// Below its first line it says how it is used.
		if line, _, _ := strings.Cut(strings.TrimSpace(errs.String()), "\n"); line != "" {
			err = errors.New(strings.TrimPrefix(line, "error: "))
		}
		return fmt.Errorf("run ps %s: %w", strings.Join(options, " "), err)
	}
	return filterPs(to, out.String(), processes)
}

// filterPs prints the header, and the lines that have one of the processes in its column PID.
func filterPs(to io.Writer, out string, processes []container.ProcessDetails) error {
	header, lines, _ := strings.Cut(out, "\n")
	column := slices.Index(strings.Fields(header), "PID")
	if column < 0 {
		return usage("top: ps has to show the column PID")
	}
	fmt.Fprintln(to, header)
	for line := range strings.Lines(lines) {
		fields := strings.Fields(line)
		if column >= len(fields) {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err == nil && slices.ContainsFunc(processes, func(p container.ProcessDetails) bool { return p.HostPid == pid }) {
			fmt.Fprint(to, line)
		}
	}
	return nil
}

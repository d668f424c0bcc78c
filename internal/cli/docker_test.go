package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestDockerFlags has each flag of docker's be one of ours, or be answered with what to use.
func TestDockerFlags(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/dockerflags.txt")
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for line := range strings.Lines(string(text)) {
		name, flags, ok := strings.Cut(line, ":")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		commands++
		root := newRoot(new(app), []string{name})
		c, _, err := root.Find([]string{name})
		if err != nil || c.Name() != name {
			t.Errorf("%s is no command: %v", name, err)
			continue
		}
		for flag := range strings.FieldsSeq(flags) {
			if !has(c, flag) && advice(c, flag) == "" {
				t.Errorf("%s: nothing is said about %s", name, flag)
			}
		}
	}
	if commands < 20 {
		t.Errorf("there are %d commands", commands)
	}
}

func has(c *cobra.Command, flag string) bool {
	c.InitDefaultHelpFlag()
	if len(flag) == 1 {
		return c.Flags().ShorthandLookup(flag) != nil || c.InheritedFlags().ShorthandLookup(flag) != nil
	}
	return c.Flag(flag) != nil
}

// TestDockerAdvice types what docker users do.
func TestDockerAdvice(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"run -p 80:80 nginx":            "run: unknown shorthand flag: 'p' in -p: networks other than none and host are to come",
		"container run --publish 80 x":  "networks other than none and host are to come",
		"create --restart always nginx": "for \"--restart\" flag: there is no daemon to do it",
		"run --no-such-flag x":          `unknown flag: --no-such-flag (see "hcs run --help")`,
		"container ls --filter a=b":     "filter \"a=b\": use KEY=VALUE with one of ancestor, ",
		"image ls --digests":            "{{.Digest}}",
		"image rm --no-prune x":         "--no-prune: leave it out",
		"port web":                      `unknown command "port": networks other than none and host are to come`,
		"container port web":            `unknown command "port": networks`,
		"network ls":                    "are to come",
		"volume create x":               "there are no named volumes",
		"compose up":                    "hcs runs single containers",
		"image history x":               "hcs image stat",
		"exce":                          `unknown command "exce": did you mean exec`,
		"xyzzy":                         `unknown command "xyzzy" (see "hcs --help")`,
	} {
		var out bytes.Buffer
		a := &app{in: os.Stdin, out: &out, err: &out, signals: new(signals)}
		root := newRoot(a, strings.Fields(args))
		root.SetArgs(strings.Fields(args))
		err := root.ExecuteContext(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}

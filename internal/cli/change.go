package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// changes reads settings of an image in the form of a Dockerfile's
// instructions, and returns what applies them; nil for none.
func changes(list []string) (func(*v1.Image), error) {
	var edits []func(*v1.Image)
	for _, text := range list {
		edit, err := change(text)
		if err != nil {
			return nil, fmt.Errorf("change %q: %w", text, err)
		}
		edits = append(edits, edit)
	}
	if len(edits) == 0 {
		return nil, nil
	}
	return func(img *v1.Image) {
		for _, edit := range edits {
			edit(img)
		}
	}, nil
}

func change(text string) (func(*v1.Image), error) {
	word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	rest = strings.TrimSpace(rest)
	if rest == "" {
		return nil, usage("no value given")
	}
	key, value, isPair := strings.Cut(rest, "=")
	switch word = strings.ToUpper(word); word {
	case "CMD":
		return func(img *v1.Image) { img.Config.Cmd = words(rest) }, nil
	case "ENTRYPOINT":
		return func(img *v1.Image) { img.Config.Entrypoint = words(rest) }, nil
	case "USER":
		return func(img *v1.Image) { img.Config.User = rest }, nil
	case "WORKDIR":
		return func(img *v1.Image) { img.Config.WorkingDir = rest }, nil
	case "STOPSIGNAL":
		return func(img *v1.Image) { img.Config.StopSignal = rest }, nil
	case "ENV", "LABEL":
		if !isPair || key == "" {
			return nil, usage("give NAME=VALUE")
		}
		if word == "ENV" {
			return func(img *v1.Image) { img.Config.Env = lastOfEach(append(img.Config.Env, rest)) }, nil
		}
		return func(img *v1.Image) { setLabel(&img.Config, key, value) }, nil
	}
	if set, ok := sets[word]; ok {
		return func(img *v1.Image) { addTo(set.of(&img.Config), rest, set.complete) }, nil
	}
	return nil, usage(fmt.Sprintf("unknown setting %q: use CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR", word))
}

// sets are the settings that take any number of values.
var sets = map[string]struct {
	of       func(*v1.ImageConfig) *map[string]struct{}
	complete func(string) string
}{
	"EXPOSE": {func(c *v1.ImageConfig) *map[string]struct{} { return &c.ExposedPorts }, func(port string) string {
		if !strings.Contains(port, "/") {
			port += "/tcp"
		}
		return port
	}},
	"VOLUME": {func(c *v1.ImageConfig) *map[string]struct{} { return &c.Volumes }, strings.Clone},
}

// addTo adds the values of a JSON array, or those between blanks.
func addTo(set *map[string]struct{}, text string, complete func(string) string) {
	var list []string
	if json.Unmarshal([]byte(text), &list) != nil {
		list = strings.Fields(text)
	}
	if *set == nil {
		*set = make(map[string]struct{})
	}
	for _, v := range list {
		(*set)[complete(v)] = struct{}{}
	}
}

func setLabel(c *v1.ImageConfig, key, value string) {
	if c.Labels == nil {
		c.Labels = make(map[string]string)
	}
	c.Labels[key] = value
}

// words are those of a JSON array, or a command of a shell's.
func words(text string) []string {
	var list []string
	if json.Unmarshal([]byte(text), &list) == nil {
		return list
	}
	return []string{"/bin/sh", "-c", text}
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/image"
)

type layoutConfigOptions struct {
	at      place
	tag     newTag
	history historyFlags

	user, workingDir, stopSignal     string
	created, author                  string
	os, architecture, variant        string
	osVersion                        string
	osFeatures                       []string
	ports, env, entrypoint, cmd      []string
	volumes, labels, annotate, clear []string
}

func newLayoutConfig(*app) *cobra.Command {
	var o layoutConfigOptions
	c := &cobra.Command{
		Use:   "config --image DIR[:TAG] [--tag NEW-TAG]",
		Short: "modifies the image configuration of an OCI image",
		Args:  takes(0, 0, ""),
		RunE:  func(c *cobra.Command, _ []string) error { return o.run(c.Context(), c) },
	}
	o.addFlags(c.Flags())
	return c
}

func (o *layoutConfigOptions) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&o.user, "config.user", "", "`user[:group]` that the process runs as")
	f.StringArrayVar(&o.ports, "config.exposedports", nil, "`port[/protocol]` to add")
	f.StringArrayVar(&o.env, "config.env", nil, "variable to set, `NAME=VALUE`")
	f.StringArrayVar(&o.entrypoint, "config.entrypoint", nil, "`word` of the entrypoint, which all given replace")
	f.StringArrayVar(&o.cmd, "config.cmd", nil, "`word` of the command, which all given replace")
	f.StringArrayVar(&o.volumes, "config.volume", nil, "`directory` to add to the volumes")
	f.StringArrayVar(&o.labels, "config.label", nil, "label to set, `NAME=VALUE`")
	f.StringVar(&o.workingDir, "config.workingdir", "", "`directory` that the process starts in")
	f.StringVar(&o.stopSignal, "config.stopsignal", "", "`signal` that asks the process to end")
	f.StringVar(&o.created, "created", "", "`time` of creation, as in 2006-01-02T15:04:05Z")
	f.StringVar(&o.author, "author", "", "`author` of the image")
	f.StringVar(&o.os, "platform.os", "", "operating `system` that the image is for")
	f.StringVar(&o.architecture, "platform.arch", "", "`architecture` that the image is for")
	f.StringVar(&o.variant, "platform.variant", "", "`variant` of the architecture")
	f.StringVar(&o.osVersion, "platform.os-version", "", "`version` of the operating system that the image is for, as Windows images have one")
	f.StringArrayVar(&o.osFeatures, "platform.os-feature", nil, "`feature` of the operating system to add to those that the image needs")
	f.StringArrayVar(&o.annotate, "manifest.annotation", nil, "annotation of the manifest to set, `NAME=VALUE`")
	f.StringArrayVar(&o.clear, "clear", nil, "`key` to clear first: "+strings.Join(slices.Sorted(maps.Keys(clearable)), ", "))
	o.tag.addFlags(f)
	o.history.addFlags(f)
	o.at.addPlatform(f)
	f.SetNormalizeFunc(umociNames)
}

// umociNames are older names of flags, which scripts use.
func umociNames(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	switch name {
	case "os":
		name = "platform.os"
	case "architecture":
		name = "platform.arch"
	case "os.version":
		name = "platform.os-version"
	}
	return pflag.NormalizedName(name)
}

func (o *layoutConfigOptions) run(ctx context.Context, c *cobra.Command) error {
	l, img, err := o.at.open(ctx, c)
	if err != nil {
		return err
	}
	e, err := l.Edit(ctx, img)
	if err != nil {
		return err
	}
	defer e.Close()
	if err := o.edit(c.Flags(), e); err != nil {
		return err
	}
	h, err := o.history.entry(c, e.Config.Author)
	if err != nil {
		return err
	}
	if h != nil {
		h.EmptyLayer = true
		e.AddHistory(*h)
	}
	_, err = e.Commit(ctx, o.tag.or(o.at.tag))
	return err
}

// edit does what the flags say: first what is cleared, then what is set.
func (o *layoutConfigOptions) edit(f *pflag.FlagSet, e *image.Edit) error {
	for _, key := range o.clear {
		clearKey, ok := clearable[key]
		if key == "rootfs.diffids" {
			return usage("--clear=rootfs.diffids is not safe")
		}
		if !ok {
			return usage("unknown key to --clear: " + key)
		}
		clearKey(e)
	}
	if o.created != "" {
		t, err := parseStamp("created", o.created)
		if err != nil {
			return err
		}
		e.Config.Created = t
	}
	cfg := &e.Config.Config
	for _, s := range []struct {
		flag  string
		value string
		to    *string
	}{
		{"author", o.author, &e.Config.Author},
		{"platform.os", o.os, &e.Config.OS},
		{"platform.arch", o.architecture, &e.Config.Architecture},
		{"platform.variant", o.variant, &e.Config.Variant},
		{"platform.os-version", o.osVersion, &e.Config.OSVersion},
		{"config.user", o.user, &cfg.User},
		{"config.workingdir", o.workingDir, &cfg.WorkingDir},
		{"config.stopsignal", o.stopSignal, &cfg.StopSignal},
	} {
		if f.Changed(s.flag) {
			*s.to = s.value
		}
	}
	addFeatures(e, o.osFeatures)
	if f.Changed("config.entrypoint") {
		cfg.Entrypoint = o.entrypoint
	}
	if f.Changed("config.cmd") {
		cfg.Cmd = o.cmd
	}
	cfg.ExposedPorts = withKeys(cfg.ExposedPorts, o.ports)
	cfg.Volumes = withKeys(cfg.Volumes, o.volumes)
	return errors.Join(
		setPairs("config.env", o.env, func(name, value string) { cfg.Env = setVariable(cfg.Env, name, value) }),
		setPairs("config.label", o.labels, func(name, value string) {
			if cfg.Labels == nil {
				cfg.Labels = map[string]string{}
			}
			cfg.Labels[name] = value
		}),
		setPairs("manifest.annotation", o.annotate, func(name, value string) { e.Annotations[name] = value }),
	)
}

// clearable are the keys of --clear.
var clearable = map[string]func(*image.Edit){
	"config.labels":        func(e *image.Edit) { e.Config.Config.Labels = nil },
	"config.exposedports":  func(e *image.Edit) { e.Config.Config.ExposedPorts = nil },
	"config.env":           func(e *image.Edit) { e.Config.Config.Env = nil },
	"platform.os-features": func(e *image.Edit) { e.Config.OSFeatures = nil },
	"config.volume":        func(e *image.Edit) { e.Config.Config.Volumes = nil },
	"config.cmd":           func(e *image.Edit) { e.Config.Config.Cmd = nil },
	"config.entrypoint":    func(e *image.Edit) { e.Config.Config.Entrypoint = nil },
	"manifest.annotations": func(e *image.Edit) { clear(e.Annotations) },
}

// addFeatures adds what an image needs of a system.
func addFeatures(e *image.Edit, features []string) {
	for _, feature := range features {
		if !slices.Contains(e.Config.OSFeatures, feature) {
			e.Config.OSFeatures = append(e.Config.OSFeatures, feature)
		}
	}
}

func withKeys(m map[string]struct{}, keys []string) map[string]struct{} {
	if m == nil && len(keys) > 0 {
		m = map[string]struct{}{}
	}
	for _, k := range keys {
		m[k] = struct{}{}
	}
	return m
}

func setPairs(flag string, pairs []string, set func(name, value string)) error {
	for _, pair := range pairs {
		name, value, found := strings.Cut(pair, "=")
		switch {
		case !found:
			return usage(fmt.Sprintf("%s: must contain '=': %s", flag, pair))
		case name == "":
			return usage(fmt.Sprintf("%s: must have non-empty name: %s", flag, pair))
		}
		set(name, value)
	}
	return nil
}

// setVariable sets a variable where it is, or at the end.
func setVariable(env []string, name, value string) []string {
	for i, kv := range env {
		if key, _, _ := strings.Cut(kv, "="); key == name {
			env[i] = name + "=" + value
			return env
		}
	}
	return append(env, name+"="+value)
}

// addHistory adds an entry for a layer, if there is one.
func addHistory(e *image.Edit, h *v1.History) {
	if h != nil {
		e.AddHistory(*h)
	}
}

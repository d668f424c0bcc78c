package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/layer"
)

// layoutCommands are umoci's verbs that act on a layout of the file system:
// those of "hcs image", beside the ones of the local store, and of umoci.
var layoutCommands = []entry{
	{"config", newLayoutConfig},
	{"gc", newLayoutCollect},
	{"init", newLayoutInit},
	{"insert", newLayoutInsert},
	{"new", newLayoutNew},
	{"raw", newLayoutRaw},
	{"repack", newLayoutRepack},
	{"stat", newLayoutStat},
	{"unpack", newLayoutUnpack},
}

// moreLayoutCommands are those that umoci does not have.
var moreLayoutCommands = []entry{
	{"convert", newLayoutConvert},
	{"flatten", newLayoutFlatten},
	{"unmount", newLayoutUnmount},
}

// onStoreOrLayout makes a command of the local store act on a layout instead,
// as the other command does, where that one's flag is given.
func onStoreOrLayout(store, onLayout *cobra.Command, flag string) *cobra.Command {
	f := onLayout.Flags()
	f.VisitAll(func(g *pflag.Flag) { delete(g.Annotations, cobra.BashCompOneRequiredFlag) })
	store.Flags().AddFlagSet(f)
	use := func() bool { return f.Lookup(flag).Changed }
	args, run := store.Args, store.RunE
	store.Args = func(c *cobra.Command, list []string) error {
		if use() {
			return onLayout.Args(c, list)
		}
		return args(c, list)
	}
	store.RunE = func(c *cobra.Command, list []string) error {
		if use() {
			return onLayout.RunE(c, list)
		}
		return run(c, list)
	}
	_, positional, _ := strings.Cut(onLayout.Use, " ")
	store.Long = strings.TrimSpace(store.Long+"\n\n"+"With --"+flag+" it acts on an OCI layout:") + "\n  " +
		strings.TrimSpace(onLayout.Name()+" "+positional)
	return store
}

// place is the flag --image: a layout and a tag in it.
type place struct {
	given     string
	dir, tag  string
	platform  string
	platforms v1.Platform
	limits    image.Limits
}

func (p *place) addFlags(f *pflag.FlagSet) {
	f.StringVar(&p.given, "image", "", "layout and tag, `DIR[:TAG]` (default tag: latest)")
}

// addPlatform is for those that read an image, of which there may be several
// under one tag.
func (p *place) addPlatform(f *pflag.FlagSet) {
	p.addFlags(f)
	f.StringVar(&p.platform, "platform", "", "which image of several, `OS[(VERSION)]/ARCH[/VARIANT]` (default: this machine's)")
}

// parse cuts the flag where umoci does, at the first colon.
func (p *place) parse(c *cobra.Command) error {
	if p.given == "" {
		return usageError(c, "missing mandatory argument: --image")
	}
	ref, err := image.ParseRef("oci:" + p.given)
	if err != nil {
		return usage(strings.Replace(err.Error(), `"oci:`, `"`, 1))
	}
	if ref.Digest != "" {
		return usageError(c, "an image is chosen by its tag, not by a digest")
	}
	p.dir, p.tag = ref.Path, ref.Tag
	if p.platform != "" {
		p.platforms, err = image.ParsePlatform(p.platform)
	}
	return err
}

// open opens the layout and finds the image.
func (p *place) open(ctx context.Context, c *cobra.Command) (*image.Layout, *image.Image, error) {
	if err := p.parse(c); err != nil {
		return nil, nil, err
	}
	l, err := image.OpenLayout(p.dir)
	if err != nil {
		return nil, nil, err
	}
	img, err := image.ResolveWithin(ctx, l, p.tag, p.platforms, p.limits)
	if err != nil {
		return nil, nil, fmt.Errorf("open image %q: %w", p.given, err)
	}
	return l, img, nil
}

// layoutDir is the flag --layout.
type layoutDir string

func (d *layoutDir) addFlags(f *pflag.FlagSet) {
	f.StringVar((*string)(d), "layout", "", "`directory` of an OCI layout")
}

func (d layoutDir) check(c *cobra.Command) error {
	if d == "" {
		return usageError(c, "missing mandatory argument: --layout")
	}
	if strings.Contains(string(d), ":") {
		return usageError(c, fmt.Sprintf("layout %q: a path with a colon cannot be told from one with a tag", string(d)))
	}
	return nil
}

func (d layoutDir) open(c *cobra.Command) (*image.Layout, error) {
	if err := d.check(c); err != nil {
		return nil, err
	}
	return image.OpenLayout(string(d))
}

// newTag is the flag --tag of those that change an image.
type newTag string

func (t *newTag) addFlags(f *pflag.FlagSet) {
	f.Var(t, "tag", "`tag` of the new image (default: that of --image, which is replaced)")
}

// Set refuses an empty tag, too: a script that has none to give does not mean
// that the image is to be replaced.
func (t *newTag) Set(s string) error {
	*t = newTag(s)
	return image.CheckTag(s)
}

func (t *newTag) String() string { return string(*t) }

func (*newTag) Type() string { return "tag" }

func (t newTag) or(tag string) string {
	if t != "" {
		return string(t)
	}
	return tag
}

// sourceDate is the time that everything is to be made at, if the environment
// asks for one: see https://reproducible-builds.org/specs/source-date-epoch/.
func sourceDate() (*time.Time, error) {
	s := os.Getenv("SOURCE_DATE_EPOCH")
	if s == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return nil, usage(fmt.Sprintf("SOURCE_DATE_EPOCH=%q: it is not a number of seconds", s))
	}
	t := time.Unix(n, 0).UTC()
	return &t, nil
}

// historyFlags say what is written into the image's history.
type historyFlags struct {
	none                                bool
	author, comment, created, createdBy string
}

func (h *historyFlags) addFlags(f *pflag.FlagSet) {
	f.BoolVar(&h.none, "no-history", false, "do not create a history entry")
	f.StringVar(&h.author, "history.author", "", "`author` for the history entry")
	f.StringVar(&h.comment, "history.comment", "", "`comment` for the history entry")
	f.StringVar(&h.created, "history.created", "", "`time` for the history entry, as in 2006-01-02T15:04:05Z")
	f.StringVar(&h.createdBy, "history.created_by", "", "`command` for the history entry")
}

// entry returns the history entry, or nil for none. by is the default of its
// author.
func (h *historyFlags) entry(c *cobra.Command, by string) (*v1.History, error) {
	if h.none {
		return nil, h.checkNone(c)
	}
	created, err := sourceDate()
	if err != nil {
		return nil, err
	}
	if h.created != "" {
		created, err = parseStamp("history.created", h.created)
		if err != nil {
			return nil, err
		}
	}
	if created == nil {
		now := time.Now().UTC()
		created = &now
	}
	entry := &v1.History{Created: created, CreatedBy: c.CommandPath(), Author: by, Comment: h.comment}
	f := c.Flags()
	if f.Changed("history.author") {
		entry.Author = h.author
	}
	if f.Changed("history.created_by") {
		entry.CreatedBy = h.createdBy
	}
	return entry, nil
}

// checkNone refuses words for an entry that there is not to be.
func (*historyFlags) checkNone(c *cobra.Command) error {
	for _, name := range []string{"history.author", "history.comment", "history.created", "history.created_by"} {
		if c.Flags().Changed(name) {
			return usageError(c, "--no-history and --"+name+" may not be specified together")
		}
	}
	return nil
}

func parseStamp(flag, s string) (*time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return nil, usage(fmt.Sprintf("--%s %q: it is not a time as in 2006-01-02T15:04:05Z", flag, s))
	}
	return &t, nil
}

// compressFlag is the flag --compress. Nil means what the image has.
type compressFlag struct{ value *layer.Compression }

func (c *compressFlag) addFlags(f *pflag.FlagSet) {
	f.Var(c, "compress", "how to compress the layer: auto (as the image's others), none, gzip, zstd")
}

func (c *compressFlag) Set(s string) error {
	if s == "auto" {
		c.value = nil
		return nil
	}
	v, err := layer.ParseCompression(s)
	if err != nil {
		return errors.New("use auto, none, gzip or zstd")
	}
	c.value = &v
	return nil
}

func (c *compressFlag) String() string {
	if c.value == nil {
		return "auto"
	}
	return c.value.String()
}

func (*compressFlag) Type() string { return "how" }

func (c *compressFlag) of(e *image.Edit) layer.Compression {
	if c.value == nil {
		return e.Compression()
	}
	return *c.value
}

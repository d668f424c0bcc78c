package cli_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/testenv"
)

// TestUmociConfigAgrees has both programs change configurations, and compares
// the documents that come of it. Each line goes on from the one before, but for
// those that begin with "base".
func TestUmociConfigAgrees(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	ours, theirs := preparedUmocis(t)
	for i, line := range []string{
		"base --created 2001-02-03T04:05:06Z --author me --config.user 1:2 --config.workingdir /w --config.stopsignal SIGINT",
		"--config.env A=b --config.env B= --config.env PATH=/x", "--config.env A=c --config.env D=e", "--clear config.env --config.env Z=1",
		"--config.entrypoint /e --config.entrypoint arg --config.cmd c --config.cmd d", "--config.cmd only", "--config.entrypoint new",
		"--clear config.cmd", "--clear config.entrypoint --clear config.cmd --config.cmd x",
		"--config.label a=b --config.label c=d=e", "--config.label a=new", "--config.label e=", "--clear config.labels",
		"--config.exposedports 80/tcp --config.exposedports 90", "--config.exposedports 80/tcp", "--clear config.exposedports",
		"--config.volume /v --config.volume /w/x/", "--config.volume /v", "--clear config.volume --config.volume /z",
		"--manifest.annotation a=b --manifest.annotation c=d", "--manifest.annotation a=e", "--clear manifest.annotations",
		"--os windows --architecture arm64", "--os linux --architecture amd64", "--author= --config.user= --config.workingdir= --config.stopsignal=",
		"--history.comment why --history.author who --history.created_by what", "--no-history --author again", "--history.author= --author third",
		"base", "base --no-history", "base --config.cmd a,b --config.entrypoint '' --config.env A=b=c",
	} {
		from := "l:t"
		if after, ok := strings.CutPrefix(line, "base"); ok {
			from, line = "l:b", after
		}
		args := append([]string{"config", "--image", from, "--tag", "t"}, strings.Fields(line)...)
		for j, arg := range args {
			args[j] = strings.Trim(arg, "'")
		}
		if !strings.Contains(line, "--no-history") {
			args = append(args, "--history.created", "2001-02-03T04:05:06Z")
		}
		got, want := ours.say(args...), theirs.say(args...)
		if got.status != 0 || want.status != 0 {
			t.Fatalf("%d %v: status %d, and umoci's %d: %s%s", i, args, got.status, want.status, got.err, want.err)
		}
		gotImage, wantImage := ours.image("t"), theirs.image("t")
		for _, img := range []*image.Image{gotImage, wantImage} {
			// When the base was made, and what follows from that.
			if i == 0 || from == "l:b" || img.Config.Created.Year() != 2001 {
				img.Config.Created = nil
			}
			if len(img.Config.History) > 0 && from == "l:b" {
				img.Config.History = img.Config.History[1:]
			}
		}
		if !reflect.DeepEqual(gotImage.Config, wantImage.Config) {
			t.Errorf("%d %v: configuration\n%+v\nwant\n%+v", i, args, gotImage.Config, wantImage.Config)
		}
		if got, want := gotImage.Manifest.Annotations, wantImage.Manifest.Annotations; !reflect.DeepEqual(got, want) {
			t.Errorf("%d %v: annotations %q, want %q", i, args, got, want)
		}
	}
}

// image reads an image that the program has made.
func (p program) image(tag string) *image.Image {
	p.t.Helper()
	src, img, err := image.OpenImage(p.t.Context(), image.Ref{Transport: image.TransportOCI, Path: p.dir + "/l", Tag: tag}, v1.Platform{})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := src.Close(); err != nil {
		p.t.Error(err)
	}
	return img
}

// TestUmociInsertAgrees has both programs add layers, and umoci unpack what came
// of it.
func TestUmociInsertAgrees(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	ours, theirs := preparedUmocis(t)
	for _, p := range []program{ours, theirs} {
		p.shell(p.dir, "mkdir tree/empty; chmod 1751 tree/empty; ln -s sub/file tree/link; ln tree/sub/file tree/sub/second; mkfifo tree/pipe; mkdir tree/.whx; "+
			"chown 7:8 tree/sub/file; ln -s tree treelink; setfattr -n user.mark -v value tree/sub; find tree treelink accounts plain -exec touch -h -d @1000000000 {} +; "+
			"tar -C tree -cf more.tar . && mkdir odd && touch odd/.wh.file")
	}
	for i, line := range []string{
		"insert tree /opt", "insert tree /opt/", "insert tree opt", "insert tree/ /a/b/c", "insert tree /", "insert plain /opt", "insert plain /opt/sub", "insert tree /opt/sub/file",
		"insert tree/sub/file /opt/f", "insert tree/link /opt/l", "insert tree/pipe /opt/p", "insert treelink /opt/t", "insert treelink/ /opt/t", "insert . /x", "insert tree /../../y",
		"insert tree/sub ./z", "insert --opaque tree/sub /opt", "insert --opaque plain /opt/empty", "insert --whiteout /opt/link", "insert --whiteout /opt",
		"insert --whiteout /nowhere/to/be", "insert --whiteout opt/", "insert --opaque --whiteout /opt", "insert --uid-map 0:7:1 --gid-map 0:8:1 tree/sub/file /mapped",
		"insert --rootless tree /rl", "raw add-layer more.tar", "insert odd /odd", "insert missing /x", "raw add-layer missing.tar", "insert tree ''", "insert '' /x",
		"insert --whiteout ''", "insert --rootless --uid-map 0:7:1 tree/sub/file /rl",
	} {
		verb, rest, _ := strings.Cut(line, " ")
		if verb == "raw" {
			_, rest, _ = strings.Cut(rest, " ")
			verb = "raw add-layer"
		}
		args := strings.Fields(verb + " --image l:b --tag t " + rest)
		for j, arg := range args {
			args[j] = strings.Trim(arg, "'")
		}
		var trees [2]string
		var statuses [2]int
		for j, p := range []program{ours, theirs} {
			if s := p.say("insert", "--image", "l:b", "--tag", "base", "tree", "/opt"); s.status != 0 {
				t.Fatal(s.err)
			}
			args[slices.Index(args, "--image")+1] = "l:base"
			s := p.say(args...)
			statuses[j] = s.status
			if s.status == 0 {
				trees[j] = program{t, theirs.path, p.dir}.unpacked()
			}
		}
		if statuses[0] != statuses[1] {
			t.Errorf("%d %s: status %d, want %d", i, line, statuses[0], statuses[1])
		} else if trees[0] != trees[1] {
			t.Errorf("%d %s: makes\n%s\nwant\n%s", i, line, trees[0], trees[1])
		}
	}
}

// unpacked describes the tree that the program makes of image l:t.
func (p program) unpacked() string {
	p.t.Helper()
	if s := p.say("unpack", "--image", "l:t", "b"); s.status != 0 {
		return "not to be unpacked: " + s.err
	}
	return p.shell(p.dir, `cd b/rootfs; find . ! -type d -printf '%p %y %m %U:%G %T@ %n %s %l\n' -o -printf '%p %y %m %U:%G\n' | sort; cd ../..; rm -rf b`)
}

package cli

import (
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/hostcompute/hcs/image"
)

// imageCommands act on the local store, or on any place that images are in.
var imageCommands = []entry{
	{"build-from-dir", newImageBuild},
	{"copy", newImageCopy},
	{"diff", newImageDiff},
	{"inspect", newImageInspect},
	{"load", newImageLoad},
	{"ls", func(a *app) *cobra.Command { return onStoreOrLayout(newImageList(a), newLayoutList(a), "layout") }},
	{"prune", newImagePrune},
	{"pull", newImagePull},
	{"push", newImagePush},
	{"rm", func(a *app) *cobra.Command { return onStoreOrLayout(newImageRemove(a), newLayoutRemove(a), "image") }},
	{"save", newImageSave},
	{"tag", func(a *app) *cobra.Command { return onStoreOrLayout(newImageTag(a), newLayoutTag(a), "image") }},
	{"verify", newImageVerify},
}

func newImage(a *app) *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "Manage images", Args: noCommand, RunE: showHelp}
	c.AddGroup(&cobra.Group{ID: "image", Title: "Images:"}, &cobra.Group{ID: "layout", Title: "Images in OCI layouts, and bundles:"})
	addCommands(c, a, "image", imageCommands, "")
	addCommands(c, a, "layout", layoutCommands, "")
	addCommands(c, a, "layout", moreLayoutCommands, "")
	return c
}

// imageView is what inspect shows of an image.
type imageView struct {
	dockerImage `json:"-"` // for templates alone

	Name     string        `json:"name,omitempty"`
	ID       digest.Digest `json:"id"`     // of the configuration
	Digest   digest.Digest `json:"digest"` // of the manifest
	Size     int64         `json:"size"`   // of all blobs, in bytes
	Manifest v1.Manifest   `json:"manifest"`
	Config   imageConfig   `json:"config"`
}

func newImageView(img *image.Image) imageView {
	return imageView{
		dockerImage: newDockerImage(img), Name: img.Name, ID: img.ID(), Digest: img.Descriptor.Digest, Size: img.Size(),
		Manifest: img.Manifest, Config: imageConfig{img.Config, img.Config.Config},
	}
}

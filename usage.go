package hcs

import (
	"context"
	"errors"
	"io/fs"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/hostcompute/hcs/container"
	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/rootfs"
)

// Usage says what takes room on the disk.
type Usage struct {
	Images     []ImageUsage
	Blobs      int64 // bytes of all images' blobs, each counted once
	Unused     int64 // bytes of those that belong to images without a container
	Layers     []LayerUsage
	Containers []ContainerUsage
}

// ImageUsage is an image by one of its names.
type ImageUsage struct {
	*image.Image
	Own        int64 // bytes of blobs that no other image has
	Containers int   // that were made from it
}

// LayerUsage is an unpacked layer.
type LayerUsage struct {
	*rootfs.Layer
	Users int // images and containers
}

// ContainerUsage is what a container takes.
type ContainerUsage struct {
	*container.System
	State   container.State
	Written int64 // bytes of its scratch layer
	Logs    int64 // bytes of what its commands have printed
}

// Usage measures what images, layers and containers take. What goes meanwhile is left out.
func (h *Host) Usage(ctx context.Context) (Usage, error) {
	var u Usage
	systems, err := h.containers.Systems(ctx)
	errs := []error{err}
	for _, s := range systems {
		c, err := measure(ctx, s)
		if err == nil {
			u.Containers = append(u.Containers, c)
		} else if !errdefs.IsNotFound(err) && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	images, err := h.images.Images(ctx)
	errs = append(errs, err)
	u.addImages(images)
	layers, err := h.layers.Layers()
	u.addLayers(layers)
	return u, errors.Join(append(errs, err)...)
}

func measure(ctx context.Context, s *container.System) (ContainerUsage, error) {
	c := ContainerUsage{System: s}
	st, err := s.Status(ctx)
	if err != nil {
		return c, err
	}
	c.State = st.State
	if c.Logs, err = s.LogSize(); err != nil || s.Record().Spec.WriteInPlace {
		return c, err
	}
	scratch, err := s.Scratch()
	if err == nil {
		c.Written, err = scratch.Usage(ctx)
	}
	return c, err
}

// blobs are the digests of what an image is in a store, with their sizes.
func blobs(img *image.Image) map[digest.Digest]int64 {
	list := map[digest.Digest]int64{
		img.Descriptor.Digest: img.Descriptor.Size, img.Manifest.Config.Digest: img.Manifest.Config.Size,
	}
	for _, l := range img.Manifest.Layers {
		list[l.Digest] = l.Size
	}
	return list
}

func (u *Usage) addImages(images []*image.Image) {
	owners := make(map[digest.Digest]map[digest.Digest]bool) // of blobs: manifests
	used := make(map[digest.Digest]bool)
	for _, img := range images {
		i := ImageUsage{Image: img}
		for _, c := range u.Containers {
			if c.Record().Spec.ImageID == img.ID() {
				i.Containers++
			}
		}
		u.Images = append(u.Images, i)
		for id, size := range blobs(img) {
			if owners[id] == nil {
				owners[id] = make(map[digest.Digest]bool)
				u.Blobs += size
			}
			owners[id][img.Descriptor.Digest] = true
			used[id] = used[id] || i.Containers > 0
		}
	}
	seen := make(map[digest.Digest]bool)
	for i := range u.Images {
		for id, size := range blobs(u.Images[i].Image) {
			if len(owners[id]) == 1 {
				u.Images[i].Own += size
			}
			if !used[id] && !seen[id] {
				seen[id] = true
				u.Unused += size
			}
		}
	}
}

func (u *Usage) addLayers(layers []*rootfs.Layer) {
	users := make(map[digest.Digest]int)
	for _, i := range u.Images {
		for _, id := range layerIDs(i.Image) {
			users[id]++
		}
	}
	for _, c := range u.Containers {
		for _, id := range c.Record().Spec.Layers {
			users[id]++
		}
	}
	for _, l := range layers {
		u.Layers = append(u.Layers, LayerUsage{l, users[l.ID()]})
	}
}

package rootfs

import (
	"context"

	"github.com/hostcompute/hcs/internal/inroot"
)

// flatten unpacks the layers from the top.
func flatten(_ context.Context, _ *inroot.Root, _ []LayerBlob, _ TreeOptions) (TreeStats, error) {
	return TreeStats{}, errNotFlat
}

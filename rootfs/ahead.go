package rootfs

import (
	"context"

	"github.com/hostcompute/hcs/layer"
)

const (
	aheadLayers = 2
	aheadBytes  = 4 << 20 // the largest blob that is opened ahead, as its decompressor takes memory
)

// ahead opens small layers, topmost first, before it is their turn, so that they are decompressed as far as their buffers
// reach.
type ahead struct {
	ctx    context.Context // of the one call that it is for
	cancel context.CancelFunc
	layers []LayerBlob
	limits layer.Limits
	opened map[int]chan opened
}

type opened struct {
	blob *openBlob
	err  error
}

func newAhead(ctx context.Context, layers []LayerBlob, limits layer.Limits) *ahead {
	ctx, cancel := context.WithCancel(ctx)
	return &ahead{ctx: ctx, cancel: cancel, layers: layers, limits: limits, opened: make(map[int]chan opened)}
}

// take returns layer i, which the caller closes.
func (a *ahead) take(i int) (*openBlob, error) {
	a.start(i)
	for next := i - 1; next >= 0 && next >= i-aheadLayers; next-- {
		if size := a.layers[next].Size; size > 0 && size <= aheadBytes {
			a.start(next)
		}
	}
	o := <-a.opened[i]
	delete(a.opened, i)
	return o.blob, o.err
}

func (a *ahead) start(i int) {
	if a.opened[i] != nil {
		return
	}
	ch := make(chan opened, 1)
	a.opened[i] = ch
	go func() {
		blob, err := a.layers[i].open(a.ctx, a.limits)
		ch <- opened{blob, err}
	}()
}

// close gives up what was opened and not taken. Nothing of that matters any more.
func (a *ahead) close() {
	a.cancel()
	for _, ch := range a.opened {
		if o := <-ch; o.err == nil {
			_ = o.blob.close()
		}
	}
}

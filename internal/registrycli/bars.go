package registrycli

import (
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/hostcompute/hcs/image"
	"github.com/hostcompute/hcs/internal/cli"
)

const (
	drawInterval = 100 * time.Millisecond
	nameLength   = 12 // of a digest, as docker shows it
)

// bars are lines of a terminal, one a layer.
type bars struct {
	mu     sync.Mutex
	all    *mpb.Progress
	layers map[int]*mpb.Bar
	ended  bool
}

func newBars(terminal io.Writer) cli.Bars {
	return &bars{
		all:    mpb.New(mpb.WithOutput(terminal), mpb.WithRefreshRate(drawInterval), mpb.WithAutoRefresh()),
		layers: make(map[int]*mpb.Bar),
	}
}

func (b *bars) Show(p image.Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return
	}
	bar := b.layers[p.Layer]
	if bar == nil {
		bar = b.add(p)
		b.layers[p.Layer] = bar
	}
	bar.SetCurrent(p.Done)
	if p.Done == p.Total {
		bar.SetTotal(p.Total, true)
	}
}

func (b *bars) add(p image.Progress) *mpb.Bar {
	name := p.Blob.Encoded()
	name = name[:min(len(name), nameLength)]
	return b.all.New(p.Total, mpb.BarStyle().Lbound("[").Filler("#").Tip("#").Padding(".").Rbound("]"),
		mpb.BarPriority(p.Layer),
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(
			decor.CountersKiloByte("%.1f of %.1f", decor.WCSyncSpace),
			decor.OnComplete(decor.AverageSpeed(decor.SizeB1000(0), "%.1f", decor.WCSyncSpace), " done"),
		),
	)
}

// End leaves what is not done as it stands.
func (b *bars) End() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return
	}
	b.ended = true
	for _, bar := range b.layers {
		bar.Abort(false) // no more than a word to one that is done
	}
	b.all.Wait()
}

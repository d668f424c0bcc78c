package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hostcompute/hcs/image"
)

// progress shows how far the loading of an image is: on a terminal in one
// line that changes, or in bars where the program has them, else as a line for
// each layer that is done.
type progress struct {
	out      io.Writer // nil shows nothing
	terminal bool
	bars     Bars // nil draws the one line
	name     string

	mu     sync.Mutex
	layers map[int]image.Progress
	drawn  time.Time
}

// drawInterval is as often as people see a difference.
const drawInterval = 50 * time.Millisecond

func (a *app) newProgress(name string, quiet bool) *progress {
	p := &progress{name: name, layers: make(map[int]image.Progress)}
	if !quiet {
		p.out, p.terminal = a.err, isTerminal(a.err)
	}
	if p.terminal && a.registries != nil {
		p.bars = a.registries.Bars(a.err)
	}
	return p
}

func (p *progress) show(l image.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.layers[l.Layer]
	p.layers[l.Layer] = l
	switch {
	case p.out == nil:
	case p.bars != nil:
		p.bars.Show(l)
	case p.terminal:
		if now := time.Now(); now.Sub(p.drawn) >= drawInterval {
			p.drawn = now
			p.draw()
		}
	case l.Done == l.Total && (was.Done != l.Done || was.Total == 0):
		fmt.Fprintf(p.out, "layer %s: %s\n", shortDigest(l.Blob.String()), humanSize(l.Total))
	}
}

const barWidth = 30

func (p *progress) draw() {
	var done, total int64
	for _, l := range p.layers {
		done, total = done+l.Done, total+l.Total
	}
	bar := make([]byte, barWidth)
	for i := range bar {
		bar[i] = '.'
		if int64(i)*total < done*barWidth {
			bar[i] = '#'
		}
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s [%s] %s of %s", p.name, bar, humanSize(done), humanSize(total))
}

// end clears the line that was drawn. Bars stay as they are.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bars != nil {
		p.bars.End()
	}
	if !p.drawn.IsZero() {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

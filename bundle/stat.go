package bundle

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hostcompute/hcs/image"
)

// A Stat is what "umoci stat" tells of an image; its JSON form is umoci's.
type Stat struct {
	History []Step `json:"history"`
}

// A Step is one entry of an image's history, and the layer that it made.
type Step struct {
	Layer  *v1.Descriptor `json:"layer"`   // nil if it made none
	DiffID string         `json:"diff_id"` // empty if it made none
	v1.History
}

// NewStat returns an image's history. A history that does not account for
// each of the layers, which the image specification allows, is followed as far
// as it goes; layers beyond it have steps of their own.
func NewStat(img *image.Image) Stat {
	var s Stat
	layers, ids := img.Manifest.Layers, img.DiffIDs()
	next := func(h v1.History) Step {
		step := Step{Layer: &layers[0], DiffID: ids[0].String(), History: h}
		layers, ids = layers[1:], ids[1:]
		return step
	}
	for _, h := range img.Config.History {
		if h.EmptyLayer || len(layers) == 0 {
			s.History = append(s.History, Step{History: h})
			continue
		}
		s.History = append(s.History, next(h))
	}
	for len(layers) > 0 {
		s.History = append(s.History, next(v1.History{}))
	}
	return s
}

// WriteText writes the table that umoci shows.
func (s Stat) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 4, 2, 1, ' ', 0)
	fmt.Fprintln(t, "LAYER\tCREATED\tCREATED BY\tSIZE\tCOMMENT")
	for _, step := range s.History {
		id, size := "<none>", "<none>"
		if step.Layer != nil {
			id, size = string(step.Layer.Digest), decimalSize(step.Layer.Size)
		}
		created := time.Time{}
		if step.Created != nil {
			created = *step.Created
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", id, created.Format(time.RFC3339Nano), oneCell(step.CreatedBy), size, oneCell(step.Comment))
	}
	return t.Flush()
}

// oneCell keeps an image's text from breaking the table, or the terminal.
func oneCell(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// decimalSize shows four digits of a size in powers of 1000, as umoci does.
func decimalSize(n int64) string {
	f, unit := float64(n), 0
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	for f >= 1000 && unit < len(units)-1 {
		f /= 1000
		unit++
	}
	return fmt.Sprintf("%.4g%s", f, units[unit])
}

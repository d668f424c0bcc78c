package sys

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// MaxLower is how many lower directories overlayfs takes: OVL_MAX_STACK in fs/overlayfs/params.h.
const MaxLower = 500

// Overlay says which directories to mount over each other, and where.
type Overlay struct {
	Lower  []string // read only, topmost first; 1 to MaxLower
	Upper  string   // takes what is written; empty for a read-only mount
	Work   string   // overlayfs's own, on the file system of Upper
	Target string   // an existing directory; none for NewOverlay

	ReadOnly  bool // read only although there is an Upper
	UserXattr bool // overlayfs keeps its marks in user.overlay.*, for those who may not write trusted.overlay.*
	Volatile  bool // unmounting does not flush Upper, whose content is lost with the machine
}

// Validate reports what makes the mount impossible, as an error of class errdefs.ErrInvalidArgument.
func (o *Overlay) Validate() error {
	if o.Target == "" {
		return fmt.Errorf("mount layers: no target given: %w", errdefs.ErrInvalidArgument)
	}
	return o.validateLayers()
}

func (o *Overlay) validateLayers() error {
	var fault string
	switch {
	case len(o.Lower) == 0:
		fault = "no lower directory given"
	case len(o.Lower) > MaxLower:
		fault = fmt.Sprintf("%d layers given, overlayfs takes at most %d", len(o.Lower), MaxLower)
	case (o.Upper == "") != (o.Work == ""):
		fault = "upper and work directory go together"
	default:
		return nil
	}
	return fmt.Errorf("mount layers on %q: %s: %w", o.Target, fault, errdefs.ErrInvalidArgument)
}

// lowerOption joins the lower directories for the lowerdir option, in which colons separate and backslashes escape.
func (o *Overlay) lowerOption() string {
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	escaped := make([]string, len(o.Lower))
	for i, dir := range o.Lower {
		escaped[i] = escape.Replace(dir)
	}
	return strings.Join(escaped, ":")
}

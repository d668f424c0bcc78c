package hcsshim

import (
	"context"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hostcompute/hcs"
	compute "github.com/hostcompute/hcs/container"
)

// endpoints is what makes networks: nothing yet.
var endpoints compute.Endpoints

// services holds the containers' service once it is open.
var services struct {
	sync.Mutex
	open *compute.Service
}

// service returns the service on the state directories that the environment names, as the command hcs has it: HCS_ROOT,
// HCS_RUN, and HCS_RUNTIME for what starts containers. It is looked at once.
func service() (*compute.Service, error) {
	services.Lock()
	defer services.Unlock()
	if services.open != nil {
		return services.open, nil
	}
	h, err := hcs.Open(hcs.Config{
		Root: os.Getenv("HCS_ROOT"), Run: os.Getenv("HCS_RUN"), Runtime: os.Getenv("HCS_RUNTIME"),
		Endpoints: endpoints,
	})
	if err != nil {
		return nil, err
	}
	services.open = h.Containers()
	return services.open, nil
}

// A limit is the environment variable with the seconds that a kind of operation may take.
type limit string

const (
	createLimit limit = "HCSSHIM_TIMEOUT_SYSTEMCREATE"
	startLimit  limit = "HCSSHIM_TIMEOUT_SYSTEMSTART"
	pauseLimit  limit = "HCSSHIM_TIMEOUT_SYSTEMPAUSE"
	resumeLimit limit = "HCSSHIM_TIMEOUT_SYSTEMRESUME"
)

// defaultTimeout is what operations may take that the environment says nothing of.
const defaultTimeout = 4 * time.Minute

// timeout returns how long the operation may take. What is no number above zero says nothing, as in hcsshim.
func (l limit) timeout() time.Duration {
	if n, err := strconv.ParseUint(os.Getenv(string(l)), 10, 32); err == nil && n > 0 {
		return time.Duration(n) * time.Second
	}
	return defaultTimeout
}

// within returns a context that ends when the operation may take no longer.
func (l limit) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, l.timeout())
}

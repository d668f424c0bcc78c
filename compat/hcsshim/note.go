package hcsshim

import (
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"

	compute "github.com/hostcompute/hcs/container"
)

// noteLabel is the label with the note of a container that CreateContainer made.
const noteLabel = "hcsshim"

// A note is what is kept of a container beside what the service keeps.
type note struct {
	Config  ContainerConfig // without Credentials
	Scratch *scratch        `json:",omitempty"` // to be taken down at the container's end
}

// label returns the note as a label's value.
func (n *note) label() (string, error) {
	text, err := json.Marshal(n)
	return string(text), err
}

// noteOf returns the note of a container. One that was made otherwise has an empty one.
func noteOf(system *compute.System) (n note, err error) {
	text, ok := labels(system)[noteLabel]
	if !ok {
		return n, nil
	}
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		return n, fmt.Errorf("read the note of container %s: %w: %w", system.Name(), err, errdefs.ErrDataLoss)
	}
	return n, nil
}

// isOurs reports whether CreateContainer made the container. What it made is gone when it has stopped.
func isOurs(system *compute.System) bool {
	_, ok := labels(system)[noteLabel]
	return ok
}

func labels(system *compute.System) map[string]string {
	record := system.Record()
	return record.Spec.Labels
}

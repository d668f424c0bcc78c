package hcsshim

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
)

// additionalJSON is the environment variable with an object that is merged into what CreateContainer is called with.
const additionalJSON = "HCSSHIM_CREATECONTAINER_ADDITIONALJSON"

// complete returns a configuration with what the environment adds to it, and as JSON. What is added wins. A field that there
// is not is an error, as it is on Windows.
func complete(c *ContainerConfig) (*ContainerConfig, []byte, error) {
	document, err := json.Marshal(c)
	if err != nil {
		return nil, nil, err
	}
	if more := os.Getenv(additionalJSON); more != "" {
		if document, err = mergeJSON(document, []byte(more)); err != nil {
			return nil, document, coded(ErrVmcomputeInvalidJSON, "merge %s: %w", additionalJSON, err)
		}
	}
	full := new(ContainerConfig)
	if err := decode(document, full); err != nil {
		return nil, document, coded(ErrVmcomputeInvalidJSON, "read the configuration: %w", err)
	}
	return full, document, nil
}

// mergeJSON merges one object into another, and the objects in them; of everything else the added one's counts.
func mergeJSON(base, added []byte) ([]byte, error) {
	into, from := make(map[string]any), make(map[string]any)
	if err := errors.Join(decode(base, &into), decode(added, &from)); err != nil {
		return base, err
	}
	merge(into, from)
	return json.Marshal(into)
}

func merge(into, from map[string]any) {
	for key, value := range from {
		old, isObject := into[key].(map[string]any)
		if added, ok := value.(map[string]any); ok && isObject {
			merge(old, added)
			continue
		}
		into[key] = value
	}
}

// decode reads a document into a value that knows all its fields. Numbers stay what they are.
func decode(document []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if d.More() {
		return errors.New("there is more after its end")
	}
	return nil
}

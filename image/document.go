package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxDocument limits indexes, manifests and configurations, in bytes.
// Registries have the same limit for manifests (distribution specification,
// "Pushing manifests").
const maxDocument = 4 << 20

// document is the set of a JSON object's top-level keys.
type document map[string]bool

// readKeys returns the top-level keys of a JSON object, which the caller has
// found to be valid JSON. It refuses what two parsers could understand in two
// ways: a key that comes twice, and a known key in another case, which
// encoding/json would accept.
func readKeys(raw []byte, known ...string) (document, error) {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	if len(raw) == 0 || raw[0] != '{' {
		return nil, invalid("it is not a JSON object")
	}
	doc := document{}
	depth, wantKey := 0, false
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '{', '[':
			depth++
			wantKey = depth == 1
		case '}', ']':
			depth--
		case ',':
			wantKey = depth == 1
		case '"':
			end := stringEnd(raw, i)
			if wantKey {
				if err := doc.add(raw[i:end], known); err != nil {
					return nil, err
				}
				wantKey = false
			}
			i = end - 1
		}
	}
	return doc, nil
}

// stringEnd returns where the string that begins at raw[i] is over.
func stringEnd(raw []byte, i int) int {
	for i++; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(raw)
}

func (d document) add(quoted []byte, known []string) error {
	var key string
	if err := json.Unmarshal(quoted, &key); err != nil {
		return badJSON(err)
	}
	for _, k := range known {
		if key != k && strings.EqualFold(key, k) {
			return invalid("its key %q is not %q", key, k)
		}
	}
	if d[key] {
		return invalid("its key %q comes twice", key)
	}
	d[key] = true
	return nil
}

// decode decodes one JSON object, alone in raw, and returns its keys.
func decode(raw []byte, into any, known ...string) (document, error) {
	if err := json.Unmarshal(raw, into); err != nil {
		return nil, badJSON(err)
	}
	return readKeys(raw, known...)
}

func badJSON(err error) error {
	return invalid("it is not valid JSON: %w", err)
}

var manifestKeys = []string{"schemaVersion", "mediaType", "config", "layers", "manifests", "fsLayers", "signatures", "subject", "annotations", "artifactType"}

// decodeManifest decodes a manifest or an index after checking that it is the
// one only: a document that is both lets two readers see two images
// (CVE-2021-41190).
func decodeManifest(raw []byte, into any, want, never []string) error {
	doc, err := decode(raw, into, manifestKeys...)
	if err != nil {
		return err
	}
	for _, key := range never {
		if doc[key] {
			return invalid("it is ambiguous: it has %q and so is something else as well", key)
		}
	}
	for _, key := range want {
		if !doc[key] {
			return invalid("it has no %q", key)
		}
	}
	return nil
}

func parseIndex(raw []byte, mediaType string) (v1.Index, error) {
	var index v1.Index
	err := decodeManifest(raw, &index, []string{"manifests"}, []string{"config", "layers", "fsLayers"})
	if err != nil {
		return v1.Index{}, err
	}
	if err := checkHeader(index.SchemaVersion, index.MediaType, mediaType); err != nil {
		return v1.Index{}, err
	}
	return index, nil
}

// parseAnyManifest decodes a manifest, which may be that of something else
// than an image. What it lists is not checked.
func parseAnyManifest(raw []byte, mediaType string) (v1.Manifest, error) {
	var m v1.Manifest
	err := decodeManifest(raw, &m, []string{"config", "layers"}, []string{"manifests", "fsLayers"})
	if err != nil {
		return v1.Manifest{}, err
	}
	return m, checkHeader(m.SchemaVersion, m.MediaType, mediaType)
}

// errNoImage says that a manifest is that of something else than an image. Of
// signatures some have an image's configuration, and no layers of an image.
var errNoImage = errors.New("which is not that of an image")

// parseManifest decodes an image's manifest.
func parseManifest(raw []byte, mediaType string) (v1.Manifest, error) {
	m, err := parseAnyManifest(raw, mediaType)
	if err != nil {
		return v1.Manifest{}, err
	}
	if !isConfig(m.Config.MediaType) {
		return v1.Manifest{}, invalid("its config has media type %q, %w", m.Config.MediaType, errNoImage)
	}
	if err := checkDescriptor(m.Config); err != nil {
		return v1.Manifest{}, invalid("its config: %w", err)
	}
	for i, l := range m.Layers {
		if !isLayer(l.MediaType) {
			return v1.Manifest{}, invalid("its layer %d has media type %q, %w", i, l.MediaType, errNoImage)
		}
		if err := checkDescriptor(l); err != nil {
			return v1.Manifest{}, invalid("its layer %d: %w", i, err)
		}
	}
	return m, nil
}

func checkHeader(version int, has, want string) error {
	if version != 2 {
		return invalid("its schema version is %d, not 2", version)
	}
	if has != "" && want != "" && has != want {
		return invalid("its media type is %q, its descriptor says %q", has, want)
	}
	return nil
}

// parseConfig decodes an image's configuration and holds its layers against
// the manifest's: exactly one diffID for each layer.
func parseConfig(raw []byte, m v1.Manifest) (v1.Image, error) {
	var config v1.Image
	if _, err := decode(raw, &config, "architecture", "os", "config", "rootfs", "history"); err != nil {
		return v1.Image{}, err
	}
	if t := config.RootFS.Type; t != "layers" {
		return v1.Image{}, invalid("its rootfs has type %q, not \"layers\"", t)
	}
	if ids, layers := len(config.RootFS.DiffIDs), len(m.Layers); ids != layers {
		return v1.Image{}, invalid("it has %d diffIDs, but its manifest has %d layers", ids, layers)
	}
	for i, id := range config.RootFS.DiffIDs {
		if err := checkDigest(id); err != nil {
			return v1.Image{}, invalid("its diffID %d: %w", i, err)
		}
	}
	return config, nil
}

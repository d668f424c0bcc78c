package wclayer

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// BaseImagesVariable is the environment variable with the directory that GetSharedBaseImages looks into.
const BaseImagesVariable = "HCS_BASE_IMAGES"

// defaultBaseImages is that directory where the variable is not set.
const defaultBaseImages = "/var/lib/hcs/base"

// baseImage is what is told of an image. Docker, which read it, has the fields.
type baseImage struct {
	Name        string
	Version     string
	Path        string
	Size        int64
	CreatedTime time.Time
}

// GetSharedBaseImages returns the base layers in the machine's directory of such, $HCS_BASE_IMAGES or /var/lib/hcs/base, as
// JSON: {"Images":[{"Name","Version","Path","Size","CreatedTime"}]}. Each is a layer directory whose name is the image's
// name, and its version after the last "_", if there is one.
func GetSharedBaseImages(ctx context.Context) (_ string, err error) {
	dir := defaultBaseImages
	if d := os.Getenv(BaseImagesVariable); d != "" {
		dir = d
	}
	defer fail(&err, "hcsshim::GetSharedBaseImages", dir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	images := []baseImage{}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		image, ok, err := readBaseImage(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		if ok {
			images = append(images, image)
		}
	}
	out, err := json.Marshal(map[string][]baseImage{"Images": images})
	return string(out), err
}

// readBaseImage returns what is to tell of a layer directory, and false for what is none.
func readBaseImage(path string) (i baseImage, ok bool, err error) {
	if dir, err := os.Stat(path); err != nil || !dir.IsDir() {
		return i, false, err
	}
	info, err := os.Stat(filepath.Join(path, filesDir))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return i, false, nil
	}
	if err != nil {
		return i, false, err
	}
	i = baseImage{Name: filepath.Base(path), Path: path, CreatedTime: info.ModTime().UTC()}
	if at := strings.LastIndexByte(i.Name, '_'); at > 0 {
		i.Name, i.Version = i.Name[:at], i.Name[at+1:]
	}
	err = filepath.WalkDir(filepath.Join(path, filesDir), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			i.Size += info.Size()
		}
		return err
	})
	return i, err == nil, err
}

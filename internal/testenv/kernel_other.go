//go:build !linux

package testenv

import (
	"errors"
	"runtime"
)

func probe(Feature) error {
	return errors.New("this is " + runtime.GOOS)
}

//go:build !linux

package sys

import "os"

func createUnnamed(string) (*os.File, error) { return nil, errNotOnThisOS }

func nameFile(*os.File, string) error { return errNotOnThisOS }

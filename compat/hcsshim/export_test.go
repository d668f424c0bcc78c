package hcsshim

import compute "github.com/hostcompute/hcs/container"

// SetEndpoints sets what makes networks, before anything else is called.
func SetEndpoints(e compute.Endpoints) { endpoints = e }

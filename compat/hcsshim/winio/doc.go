// Package winio has what the signatures of the layer API take from go-winio's package of this name, which has these for
// Windows alone: the times and attributes of a file.
//
// It opens no pipes and takes no privileges.
package winio

// Package schema1 has those documents of the Host Compute System that hcsshim's API speaks of and does not export.
package schema1

import (
	"fmt"
	"strings"
)

// ErrorEvent is what a part of the system said about a failure.
type ErrorEvent struct {
	Message    string `json:"Message,omitempty"`
	StackTrace string `json:"StackTrace,omitempty"`
	Provider   string `json:"Provider,omitempty"`
	EventID    uint16 `json:"EventId,omitempty"`
	Flags      uint32 `json:"Flags,omitempty"`
	Source     string `json:"Source,omitempty"`
}

// String returns the event as the text of an error has it.
func (e *ErrorEvent) String() string {
	parts := []string{"[Event Detail: " + e.Message}
	for _, p := range []struct {
		name  string
		value any
		is    bool
	}{
		{"Stack Trace", e.StackTrace, e.StackTrace != ""},
		{"Provider", e.Provider, e.Provider != ""},
		{"EventID", e.EventID, e.EventID != 0},
		{"flags", e.Flags, e.Flags != 0},
		{"Source", e.Source, e.Source != ""},
	} {
		if p.is {
			parts = append(parts, fmt.Sprintf("%s: %v", p.name, p.value))
		}
	}
	return strings.Join(parts, " ") + "]"
}

// GuestConnectionInfo is what the guest of a utility VM says of itself.
type GuestConnectionInfo struct {
	SupportedSchemaVersions  []Version                `json:",omitempty"`
	ProtocolVersion          uint32                   `json:",omitempty"`
	GuestDefinedCapabilities GuestDefinedCapabilities `json:",omitempty"`
}

// GuestDefinedCapabilities is what a guest can do.
type GuestDefinedCapabilities struct {
	NamespaceAddRequestSupported bool `json:",omitempty"`
	SignalProcessSupported       bool `json:",omitempty"`
}

// Version is that of a schema.
type Version struct {
	Major int32 `json:"Major,omitempty"`
	Minor int32 `json:"Minor,omitempty"`
}

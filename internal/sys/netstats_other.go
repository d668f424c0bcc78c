//go:build !linux

package sys

// NetworkMeter is for Linux.
type NetworkMeter struct{}

// NewNetworkMeter returns an error.
func NewNetworkMeter(int) (*NetworkMeter, error) { return nil, errNotOnThisOS }

// Close does nothing.
func (*NetworkMeter) Close() error { return nil }

// Read returns an error.
func (*NetworkMeter) Read(list []InterfaceStats) ([]InterfaceStats, error) {
	return list, errNotOnThisOS
}

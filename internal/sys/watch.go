package sys

// WatchEvents say what a Watch is to tell of a directory.
type WatchEvents uint32

const (
	// WatchWrites are writes to its files.
	WatchWrites WatchEvents = 1 << iota
	// WatchNames are names that come and go.
	WatchNames
	// WatchReleases are files that somebody had open for writing and has no more.
	WatchReleases
)

// Package bench holds the measures that the project keeps: each against a
// peer, in the same run, pair by pair, so that a ratio means something on a
// machine that others use too. There is nothing in it but benchmarks.
package bench

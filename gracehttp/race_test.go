//go:build unix && race

package gracehttp_test

// The race detector dies of more than 8128 goroutines.
const idleConnections = 1000

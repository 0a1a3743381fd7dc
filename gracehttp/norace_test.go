//go:build unix && !race

package gracehttp_test

const idleConnections = 10_000

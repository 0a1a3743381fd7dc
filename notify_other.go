//go:build !linux

package grace

import "time"

// There is no systemd.

func notify(...string)                {}
func notifyFD(int, ...string) error   { return nil }
func managed() bool                   { return false }
func monotonic() string               { return "" }
func watchdogInterval() time.Duration { return 0 }

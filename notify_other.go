//go:build !linux

package grace

// notify does nothing where there is no systemd.
func notify(...string) {}

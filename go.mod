module github.com/facebookgo/grace

go 1.24

require (
	github.com/coreos/go-systemd/v22 v22.7.0
	golang.org/x/sys v0.35.0
)

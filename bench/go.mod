module github.com/facebookgo/grace/bench

go 1.24

replace github.com/facebookgo/grace => ../

require (
	github.com/facebookgo/grace v0.0.0-00010101000000-000000000000
	golang.org/x/sys v0.35.0
)

require github.com/coreos/go-systemd/v22 v22.7.0 // indirect

module github.com/facebookgo/grace/examples

go 1.26.0

replace github.com/facebookgo/grace => ../

require (
	github.com/coder/websocket v1.8.15
	github.com/facebookgo/grace v0.0.0-00010101000000-000000000000
	github.com/quic-go/quic-go v0.65.0
	google.golang.org/grpc v1.80.0
)

require (
	github.com/coreos/go-systemd/v22 v22.7.0 // indirect
	github.com/quic-go/qpack v0.6.0 // indirect
	go.uber.org/mock v0.6.0 // indirect
	golang.org/x/crypto v0.54.0 // indirect
	golang.org/x/net v0.56.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.40.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260120221211-b8f7ae30c516 // indirect
	google.golang.org/protobuf v1.36.11 // indirect
)

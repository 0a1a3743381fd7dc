//go:build unix

// Package gracetest proves that a service loses no request when it is restarted.
//
// It starts the program that a test names, as users run it: a process of its own,
// with real sockets. It puts it under load with clients that never send a request a
// second time, restarts it again and again, kills either side of a handover at random
// points, and installs programs in its place that can't serve. Then it reports what
// was lost, and fails the test with an account of the first loss:
//
//	func TestRestartsLoseNothing(t *testing.T) {
//		addr := gracetest.FreeAddr(t)
//		url := "http://" + addr + "/"
//		s := gracetest.Start(t, exec.Command(gracetest.Build(t, "."), "-addr", addr))
//		s.WaitAnswer(gracetest.Raw(gracetest.Request{URL: url}))
//		report := s.Prove(gracetest.Plan{
//			Clients:     gracetest.Mix(url),
//			Restarts:    10,
//			Kills:       5,
//			BadPrograms: true,
//		})
//		t.Log(report)
//	}
//
// It knows nothing of how the service does it, and works for servers that are built
// with another library, or are not written in Go, as long as one signal restarts them
// and another one stops them. For a server that uses grace set a short standby in
// tests, and say so in [Plan]: each restart takes that long. Set a long time of grace for
// idle connections, too: on a busy machine a client may take more than half a second from
// when it has connected until it has sent its request.
//
// The package is for Linux. Elsewhere on Unix it finds the processes of a service
// by their process group, and can't tell which descriptors they have.
package gracetest

import (
	"net"
	"time"
)

// Patience is how long a test waits for what must happen. It is long, since a busy
// machine is no failure.
const Patience = 60 * time.Second

// TB is what this package needs of [testing.TB]. A program that is no test may bring
// one of its own; its Fatalf must not return.
type TB interface {
	Helper()
	Cleanup(func())
	TempDir() string
	Failed() bool
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Poll waits until done reports true, which nothing announces. It fails the test
// after [Patience].
func Poll(t TB, what string, done func() bool) {
	t.Helper()
	poll(t, Patience, what, done)
}

func poll(t TB, patience time.Duration, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// FreeAddr returns an address of the loopback interface, with a port that nobody
// uses. Another program may take it before the service does.
func FreeAddr(t TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	defer l.Close()
	return l.Addr().String()
}

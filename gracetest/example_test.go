//go:build unix

package gracetest_test

import (
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

// The test of a server in the working directory, whose flag -standby makes each
// restart quick.
func Example() {
	_ = func(t *testing.T) {
		addr := gracetest.FreeAddr(t)
		url := "http://" + addr + "/"
		s := gracetest.Start(t, exec.Command(gracetest.Build(t, "."), "-addr", addr, "-standby", "1s"))
		s.WaitAnswer(gracetest.Raw(gracetest.Request{URL: url}))
		report := s.Prove(gracetest.Plan{
			Clients:     gracetest.Mix(url),
			Restarts:    10,
			Kills:       5,
			BadPrograms: true,
			Standby:     time.Second,
		})
		t.Log(report)
		s.Stop()
	}
}

// A client of another protocol: here the answer is all that the server sends before
// it closes the connection.
func ExampleFunc() {
	const addr = "127.0.0.1:7000"
	client := gracetest.Func("time of day", func() (string, error) {
		c, err := net.DialTimeout("tcp", addr, gracetest.Patience)
		if err != nil {
			return "", err
		}
		defer c.Close()
		b := make([]byte, 100)
		n, err := c.Read(b)
		return string(b[:n]), err
	})
	_ = func(t *testing.T, s *gracetest.Service) {
		s.Prove(gracetest.Plan{Clients: []gracetest.Client{client, client}, Restarts: 10})
	}
}

// A test that restarts a service itself, and looks what clients saw.
func ExampleLoad() {
	_ = func(t *testing.T, s *gracetest.Service, url string) {
		load := gracetest.NewLoad(t, gracetest.Mix(url)...)
		for range 10 {
			load.WaitMore(100)
			s.Restart()
		}
		report := load.Stop() // fails the test if a request was lost
		t.Logf("%s; 99 of 100 took %v at most", report, report.Latency(0.99))
	}
}

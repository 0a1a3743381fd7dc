//go:build unix

package gracetest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/facebookgo/grace/gracetest"
	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// A server that uses the library loses nothing, whatever is done to it.
func TestProve(t *testing.T) {
	http := []play.Listen{{Addr: "127.0.0.1:0"}, {Addr: "127.0.0.1:0", TLS: true}}
	raw := []play.Listen{{Network: "tcp", Addr: "127.0.0.1:0"}, {Network: "tcp", Addr: "127.0.0.1:0"}}
	for name, cfg := range map[string]play.Config{
		"HTTP":                             {Role: "http", Listens: http},
		"idle connections are handed over": {Role: "http", Listens: http, HandOverIdle: true},
		"KeepPID":                          {Role: "http", Listens: http, KeepPID: true},
		"lines":                            {Role: "grace", Listens: raw},
		"lines on kept connections":        {Role: "talk", Listens: raw, Goodbye: true},
	} {
		t.Run(name, func(t *testing.T) {
			plan := gracetest.Plan{Restarts: 2, Kills: 4, Standby: 2 * time.Second}
			bad := 0
			if cfg.Role == "http" && !cfg.HandOverIdle { // the others refuse no others
				plan.BadPrograms, bad = true, 10
			}
			// A busy machine may take longer for a handshake than the default.
			cfg.Standby, cfg.IdleGrace = plan.Standby, testbin.Patience
			s := testbin.Start(t, cfg)
			s.KeepsPID = cfg.KeepPID
			var hangUps []func()
			_, addrs := s.Newest()
			switch cfg.Role {
			case "http":
				plan.Clients = gracetest.Mix("http://"+addrs[0]+"/", "https://"+addrs[1]+"/")
			case "grace":
				plan.Clients = asking(testbin.Lines("tcp", addrs[0]), testbin.Lines("tcp", addrs[1]))
			case "talk":
				for i, addr := range addrs {
					target, hangUp := testbin.Talk(cfg.Listens[i], addr)
					hangUps = append(hangUps, hangUp)
					plan.Clients = append(plan.Clients, asking(target)...)
				}
			}
			r := s.Prove(plan)
			t.Log(r)
			if want := plan.Restarts + plan.Kills + bad; r.Restarts+r.Refused != want {
				t.Errorf("%d restarts and %d that were refused, want %d together", r.Restarts, r.Refused, want)
			}
			if r.Refused < bad {
				t.Errorf("%d restarts were refused, want one for each bad program", r.Refused)
			}
			for _, hangUp := range hangUps { // or the drain waits for another request
				hangUp()
			}
			s.Service.Stop()
		})
	}
}

// asking are clients that ask for the pid.
func asking(targets ...testbin.Target) (clients []gracetest.Client) {
	for i, target := range targets {
		clients = append(clients, gracetest.Func(fmt.Sprintf("target %d", i), func() (string, error) { return target("") }))
	}
	return clients
}

// Each fault of a server is found, and is told so that it can be understood.
func TestProveFindsFaults(t *testing.T) {
	// Of the fault "no takeover". A busy machine may take a part of it for a restart; the
	// seed kills the new process first, at an early moment.
	const standby = 10 * time.Second
	for _, test := range []struct {
		fault string
		plan  gracetest.Plan
		want  []string // parts of what is told
	}{
		{"none", gracetest.Plan{Restarts: 2}, nil},
		{"request", gracetest.Plan{Restarts: 2}, []string{
			"requests were lost. The first one:", "GET http://", "the server has closed the connection",
			"What happened at that time:", "user defined signal 2 is sent to process",
		}},
		{"descriptor", gracetest.Plan{Restarts: 3}, []string{"2 descriptors are leaked: /"}},
		{"process", gracetest.Plan{Restarts: 1}, []string{"waited in vain for the service to have 1 processes again"}},
		{"bad process", gracetest.Plan{Restarts: 1, BadPrograms: true}, []string{"waited in vain for the end of what has come of a restart with a bad program: "}},
		{"gives up", gracetest.Plan{Restarts: 1, BadPrograms: true}, []string{"has gone, after a restart with a bad program: "}},
		{"no takeover", gracetest.Plan{Kills: 5, Standby: standby, Seed: 24}, []string{"has gone, after the new process "}},
	} {
		t.Run(test.fault, func(t *testing.T) {
			t.Parallel()
			told := watch(t, func(tb testing.TB) {
				s := testbin.Start(tb, play.Config{
					Role: "by hand", PreStart: test.fault, Listens: []play.Listen{{Addr: "127.0.0.1:0"}}, Standby: standby,
				})
				_, addrs := s.Newest()
				if strings.HasSuffix(test.fault, "process") {
					s.Patience = 10 * time.Second // which it waits in vain
				}
				plan := test.plan
				for range 4 {
					plan.Clients = append(plan.Clients, gracetest.Raw(gracetest.Request{
						URL: "http://" + addrs[0] + "/sleep%2020ms", Fresh: true,
					}))
				}
				s.Prove(plan)
			})
			if test.want == nil && told != "" {
				t.Errorf("told:\n%s\nwant nothing", told)
			}
			for _, want := range test.want {
				if !strings.Contains(told, want) {
					t.Errorf("told:\n%s\nwant %q", told, want)
				}
			}
		})
	}
}

// A plan that can't be carried out is refused, and says what to change.
func TestPlanRefused(t *testing.T) {
	answers := []gracetest.Client{answering("1")}
	for _, test := range []struct {
		plan     gracetest.Plan
		keepsPID bool
		want     string
	}{
		{gracetest.Plan{Restarts: 1}, false, "the plan has no clients, so nothing can be proved: set Plan.Clients"},
		{gracetest.Plan{Clients: answers, Kills: 1, Standby: -1}, true, "has no process that could be killed: set Plan.Kills to 0"},
	} {
		told := watch(t, func(tb testing.TB) {
			s := shell(tb, "exec sleep 1000")
			s.KeepsPID = test.keepsPID
			s.Prove(test.plan)
		})
		expect(t, told, test.want)
	}
}

// So is the standby of another service.
func TestProveWithWrongStandby(t *testing.T) {
	t.Parallel()
	told := watch(t, func(tb testing.TB) {
		s := testbin.Start(tb, play.Config{Role: "by hand", Listens: []play.Listen{{Addr: "127.0.0.1:0"}}})
		_, addrs := s.Newest()
		s.Prove(gracetest.Plan{
			Clients: []gracetest.Client{gracetest.Raw(gracetest.Request{URL: "http://" + addrs[0] + "/", Fresh: true})},
			Kills:   1,
			Standby: time.Hour,
			Seed:    54, // which kills the new process at a late moment
		})
	})
	expect(t, told, " has gone within the standby of 1h0m0s: set Plan.Standby to what the service has")
}

//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/facebookgo/grace/gracetest"
)

// The names of the systems that are written in Go, and of the ones from Debian.
const (
	nameGrace    = "grace"
	nameHandOver = "grace HandOverIdle"
	namePlain    = "plain net/http"
	nameHand     = "by hand"
)

// goSystems are those that program, the command in server/, is.
func goSystems(program string) []*system {
	return []*system{
		goSystem(program, nameGrace, "-system=grace"),
		goSystem(program, nameHandOver, "-system=grace", "-handover"),
		goSystem(program, namePlain, "-system=plain"),
		goSystem(program, nameHand, "-system=hand"),
	}
}

func goSystem(program, name string, flags ...string) *system {
	s := &system{name: name, ours: strings.HasPrefix(name, nameGrace), keeps: name == namePlain, slow: true, isGo: true}
	s.start = func(t *scope, c conditions) *server {
		t.Helper()
		addr := gracetest.FreeAddr(t)
		args := append(flags[:len(flags):len(flags)], fmt.Sprintf("-standby=%v", c.standby), fmt.Sprintf("-listeners=%d", max(c.listeners, 1)))
		if c.cert != "" {
			args = append(args, "-cert="+c.cert, "-key="+c.key)
		}
		srv := &server{t: t, system: s, addr: addr}
		launch := func() {
			srv.Service = gracetest.Launch(t, program, func(service *gracetest.Service) *exec.Cmd {
				cmd := exec.Command(service.Path(), append(args, addr)...)
				if len(c.cpus) != 0 {
					cmd.Env = append(gracetest.Environ(), fmt.Sprintf("GOMAXPROCS=%d", len(c.cpus)))
				}
				srv.started = time.Now()
				return cmd
			})
		}
		if len(c.cpus) == 0 {
			launch()
		} else {
			onCPUs(t, c.cpus, launch)
		}
		return srv
	}
	return s
}

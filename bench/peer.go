//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/facebookgo/grace/gracetest"
	"golang.org/x/sys/unix"
)

// peers are the servers that flags add.
type peers []*system

func (p *peers) String() string { return fmt.Sprint([]*system(*p)) }

// Set takes name=path:SIGNAL. No two systems may have the same name.
func (p *peers) Set(value string) error {
	name, rest, ok := strings.Cut(value, "=")
	colon := strings.LastIndexByte(rest, ':')
	if !ok || name == "" || colon < 1 {
		return fmt.Errorf("%q: write it as name=path:SIGNAL, such as other=./other:USR2", value)
	}
	path, signame := rest[:colon], strings.TrimPrefix(strings.ToUpper(rest[colon+1:]), "SIG")
	sig := unix.SignalNum("SIG" + signame)
	if sig == 0 {
		return fmt.Errorf("%q: there is no signal %q; most servers take USR2 or HUP", value, rest[colon+1:])
	}
	if info, err := os.Stat(path); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%q: %s is no program that can be run", value, path)
	}
	known := []string{nameGrace, nameHandOver, namePlain, nameHand, nameReload, nameUpgrade, nameHAProxy}
	for _, other := range *p {
		known = append(known, other.name)
	}
	if slices.Contains(known, name) {
		return fmt.Errorf("%q: there is a server of the name %q already", value, name)
	}
	*p = append(*p, peerSystem(name, path, sig))
	return nil
}

// peerSystem is any other server: it is started with an address as its only argument, and
// answers /pid.
func peerSystem(name, program string, sig syscall.Signal) *system {
	sys := &system{name: name}
	sys.start = func(t *scope, _ conditions) *server {
		t.Helper()
		addr := gracetest.FreeAddr(t)
		s := &server{t: t, system: sys, addr: addr}
		s.Service = gracetest.Start(t, exec.Command(program, addr))
		s.RestartSignal = sig
		s.master = s.waitUp() != s.PID()
		return s
	}
	return sys
}

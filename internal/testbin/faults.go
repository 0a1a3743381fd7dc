//go:build unix

package testbin

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/facebookgo/grace/internal/testbin/play"
)

// faults are programs that an operator should not have deployed. One that panics
// when it is initialised is in package play.
var faults = map[string]func(play.Config) error{
	"exit":        func(play.Config) error { os.Exit(7); return nil },
	"exit 0":      func(play.Config) error { os.Exit(0); return nil },
	"complain":    complain,
	"panic":       func(play.Config) error { panic("on purpose") },
	"kill":        func(play.Config) error { return signalSelf(syscall.SIGKILL) },
	"stop":        func(play.Config) error { return signalSelf(syscall.SIGSTOP) },
	"hang":        hang,
	"rubbish":     sendRubbish,
	"close":       closeDescriptors,
	"heir":        leaveHeir,
	"blocking":    setBlocking,
	"ready twice": readyTwice,

	"dies of a connection": dieOfConnection,
}

// complain writes more lines to standard error than anybody is told, and exits.
func complain(play.Config) error {
	for i := range 100 {
		fmt.Fprintf(os.Stderr, "line %d of the complaint%s\n", i, strings.Repeat(".", i))
	}
	os.Exit(7)
	return nil
}

func signalSelf(sig syscall.Signal) error {
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		return err
	}
	return hang(play.Config{})
}

// hang never becomes ready. A timer keeps the runtime from calling it a
// deadlock.
func hang(play.Config) error {
	for {
		time.Sleep(time.Hour)
	}
}

// sockets returns the descriptors that were passed to this process, but for
// those of the Go runtime, which are no sockets.
func sockets() (fds []int) {
	for fd := 3; fd < 20; fd++ {
		if _, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE); err == nil {
			fds = append(fds, fd)
		}
	}
	return fds
}

// say writes to every socket that takes it: the control socket.
func say(text string) {
	for _, fd := range sockets() {
		_, _ = syscall.Write(fd, []byte(text))
	}
}

func sendRubbish(cfg play.Config) error {
	say("rubbish \x00\xff\n")
	return hang(cfg)
}

// closeDescriptors closes what it was given, as daemons do, and goes on.
func closeDescriptors(cfg play.Config) error {
	for _, fd := range sockets() {
		_ = syscall.Close(fd)
	}
	return hang(cfg)
}

// leaveHeir exits, and leaves a process behind that holds all it was given.
func leaveHeir(play.Config) error {
	cmd := exec.Command("sleep", "1000")
	for _, fd := range sockets() {
		// os/exec makes what it passes blocking, for every process that has it.
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(dup), "socket"))
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	return errors.New("exits without its heir")
}

// setBlocking makes the sockets blocking, which all processes share that hold
// them, and exits when it has lived for a while.
func setBlocking(play.Config) error {
	for _, fd := range sockets() {
		if err := syscall.SetNonblock(fd, false); err != nil {
			return err
		}
	}
	play.Emit(play.Event{Event: play.Log, Text: "sockets are blocking"})
	time.Sleep(100 * time.Millisecond)
	return errors.New("done harm")
}

// readyTwice says ready too early and too often, and serves all the same.
func readyTwice(cfg play.Config) error {
	say("ready\nready\n")
	return ServeHTTP(cfg, handler())
}

// dieOfConnection says that it serves and takes connections, and dies when one
// comes. It does not answer.
func dieOfConnection(cfg play.Config) error {
	control := -1
	for _, fd := range sockets() {
		if _, err := syscall.Write(fd, []byte("ready takes=0\n")); err == nil {
			control = fd
		}
	}
	play.Emit(play.Event{Event: play.Serving, Addrs: []string{cfg.Listens[0].Addr}})
	if err := syscall.SetNonblock(control, false); err != nil {
		return err
	}
	for {
		b, oob := make([]byte, 4096), make([]byte, 4096)
		n, oobn, _, _, err := syscall.Recvmsg(control, b, oob, 0)
		if err != nil {
			return err
		}
		if n == 0 || oobn > 0 {
			os.Exit(1)
		}
	}
}

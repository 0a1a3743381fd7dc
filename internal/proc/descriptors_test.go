//go:build linux

package proc_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/facebookgo/grace/gracetest"
	"github.com/facebookgo/grace/internal/proc"
)

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// asleep waits until a sleeper has read the files that it needs to start.
func asleep(t *testing.T, cmd *exec.Cmd) (pid int) {
	t.Helper()
	pid = cmd.Process.Pid
	gracetest.Poll(t, "a process to sleep", func() bool {
		s, err := proc.ReadStat(pid)
		return err == nil && s.State == 'S'
	})
	return pid
}

// Descriptors tells what stays from what comes and goes.
func TestDescriptors(t *testing.T) {
	dir := must[string](t)(os.MkdirTemp("", "grace"))
	defer os.RemoveAll(dir)
	file := must[*os.File](t)
	passed := []*os.File{file(os.Open(dir))}
	pass := func(c interface{ File() (*os.File, error) }) { passed = append(passed, file(c.File())) }

	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0")).(*net.TCPListener)
	client := must[net.Conn](t)(net.Dial("tcp", l.Addr().String())).(*net.TCPConn)
	server := must[*net.TCPConn](t)(l.AcceptTCP())
	for _, c := range []interface{ File() (*os.File, error) }{l, client, server} {
		pass(c)
	}
	udp := must[net.PacketConn](t)(net.ListenPacket("udp", "127.0.0.1:0")).(*net.UDPConn)
	pass(udp)
	path := filepath.Join(dir, "s")
	ul := must[net.Listener](t)(net.Listen("unix", path)).(*net.UnixListener)
	uclient := must[net.Conn](t)(net.Dial("unix", path)).(*net.UnixConn)
	userver := must[*net.UnixConn](t)(ul.AcceptUnix())
	pass(ul)
	pass(userver)
	pair := must[[2]int](t)(syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0))
	syscall.CloseOnExec(pair[0])
	syscall.CloseOnExec(pair[1])
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	passed = append(passed, r, os.NewFile(uintptr(pair[0]), "one"), os.NewFile(uintptr(pair[1]), "two"))
	for _, c := range []interface{ Close() error }{l, client, server, udp, ul, uclient, userver, w} {
		defer c.Close()
	}

	cmd := sleeper(t, "/bin/sleep", nil, passed...)
	for _, f := range passed {
		f.Close()
	}
	got := must[[]string](t)(proc.Descriptors(asleep(t, cmd)))
	// Every process may have some more that this one was started with.
	null := file(os.Open(os.DevNull))
	defer null.Close()
	other := sleeper(t, "/bin/sleep", nil, slices.Repeat([]*os.File{null}, len(passed))...)
	want := must[[]string](t)(proc.Descriptors(asleep(t, other)))
	for range passed {
		i := slices.Index(want, os.DevNull)
		want = slices.Delete(want, i, i+1)
	}
	want = append(want, dir, "datagram socket", "listener", "listener", "pipe", "unix socket", "unix socket")
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if list, err := proc.Descriptors(cmd.Process.Pid); err == nil {
		t.Errorf("a process that has gone has %q", list)
	}
}

//go:build unix

package gracetest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// sleeper is a process that does nothing, with these files.
func sleeper(t *testing.T, path string, attr *syscall.SysProcAttr, files ...*os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(path, "1000")
	cmd.ExtraFiles, cmd.SysProcAttr = files, attr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
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
	got := must[[]string](t)(Descriptors(cmd.Process.Pid))
	// Every process may have some more that this one was started with.
	null := file(os.Open(os.DevNull))
	defer null.Close()
	want := must[[]string](t)(Descriptors(sleeper(t, "/bin/sleep", nil, slices.Repeat([]*os.File{null}, len(passed))...).Process.Pid))
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
	if list, err := Descriptors(cmd.Process.Pid); err == nil {
		t.Errorf("a process that has gone has %q", list)
	}
}

// Without /proc the processes of a service are found by their group.
func TestInGroup(t *testing.T) {
	leader := sleeper(t, "/bin/sleep", &syscall.SysProcAttr{Setpgid: true}).Process.Pid
	second := sleeper(t, "/bin/sleep", &syscall.SysProcAttr{Setpgid: true, Pgid: leader})
	sleeper(t, "/bin/sleep", &syscall.SysProcAttr{Setpgid: true}) // has another one
	found := func() (pids []int) {
		for _, p := range inGroup(leader) {
			pids = append(pids, p.pid)
		}
		slices.Sort(pids)
		return pids
	}
	want := []int{leader, second.Process.Pid}
	slices.Sort(want)
	if got := found(); !slices.Equal(got, want) {
		t.Errorf("the group has %v, want %v", got, want)
	}
	// One that has exited is none, whether or not anyone has waited for it.
	if err := second.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	Poll(t, "the group to have one process", func() bool { return slices.Equal(found(), []int{leader}) })
	_ = second.Wait()
	if got := found(); !slices.Equal(got, []int{leader}) {
		t.Errorf("the group has %v, want %d", got, leader)
	}
}

// The name of a process may hold anything.
func TestReadStat(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a) Z (b")
	if err := os.Symlink("/bin/sleep", name); err != nil {
		t.Fatal(err)
	}
	cmd := sleeper(t, name, nil)
	s, err := readStat(cmd.Process.Pid)
	if err != nil || s.parent != os.Getpid() || s.exited() || s.threads != 1 || s.start == 0 {
		t.Errorf("got %+v, %v", s, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	Poll(t, "the process to be a zombie", func() bool {
		s, err := readStat(cmd.Process.Pid)
		return err == nil && s.exited()
	})
}

// What a killed process had may be lost; nothing else.
func TestWasKilled(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(1000, int64(ms)*1e6) }
	p := &proof{kills: []kill{{sent: at(100), gone: at(110)}, {sent: at(5000)}}}
	for _, test := range []struct {
		name                 string
		opened, begun, ended int
		want                 bool
	}{
		{"over before the kill", 0, 50, 99, false},
		{"under way", 0, 50, 105, true},
		{"begun while it dies", 0, 105, 120, true},
		{"opened while it dies", 105, 106, 120, true},
		{"on a connection whose end was not noticed", 0, 1000, 1001, true},
		{"long after", 0, 1111, 1112, false},
		{"on a connection that is younger", 110, 111, 112, false},
		{"before the second kill", 2000, 4000, 4999, false},
		{"while the second one dies", 2000, 4000, 5001, true},
		{"opened after the second kill, before it is known to have gone", 5002, 5002, 5003, true},
	} {
		if got := p.wasKilled(at(test.opened), at(test.begun), at(test.ended)); got != test.want {
			t.Errorf("%s: %t, want %t", test.name, got, test.want)
		}
	}
}

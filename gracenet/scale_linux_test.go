package gracenet_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
	"golang.org/x/sys/unix"
)

func init() {
	roles = append(roles, testbin.Role{Name: "many", Serve: roleMany}, testbin.Role{Name: "starts", Serve: roleStarts}, testbin.Role{Name: "bare", Serve: roleBare})
}

// Thousands of listeners. PreStart carries what the roles need: the network, the
// number and where the addresses begin.

func manyConfig(role, network string, n int, base string) play.Config {
	return play.Config{Role: role, PreStart: fmt.Sprint(network, " ", n, " ", base)}
}

func manyAddr(network string, i int, base string) string {
	if network == "tcp" {
		return fmt.Sprintf("127.9.%d.%d:%s", i/250, i%250+1, base)
	}
	return filepath.Join(base, strconv.Itoa(i))
}

// listenMany makes n listeners, or inherits them.
func listenMany(cfg play.Config, listen func(i int, network, addr string) (net.Listener, error)) ([]net.Listener, error) {
	var network, base string
	var n int
	if _, err := fmt.Sscan(cfg.PreStart, &network, &n, &base); err != nil {
		return nil, err
	}
	listeners := make([]net.Listener, n)
	for i := range listeners {
		l, err := listen(i, network, manyAddr(network, i, base))
		if err != nil {
			return nil, err
		}
		listeners[i] = l
	}
	return listeners, nil
}

// roleMany is a server with many listeners.
func roleMany(cfg play.Config) error {
	listeners, err := listenMany(cfg, func(_ int, network, addr string) (net.Listener, error) { return net1.Listen(network, addr) })
	if err != nil {
		return err
	}
	cfg.PreStart = ""
	return testbin.ServeLines(cfg, listeners, func(i int, question string) string {
		if question != "" {
			return play.Answer(question)
		}
		return fmt.Sprint(i, " ", os.Getpid())
	})
}

// roleStarts does the same, and starts its successor itself, as programs did that were
// written for the original.
func roleStarts(cfg play.Config) error {
	listeners, err := listenMany(cfg, func(_ int, network, addr string) (net.Listener, error) { return net1.Listen(network, addr) })
	if err != nil {
		return err
	}
	for i, l := range listeners {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go play.ServeConnWith(c, func(string) string { return fmt.Sprint(i, " ", os.Getpid()) })
			}
		}()
	}
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR2)
	play.Emit(play.Event{Event: play.Serving, Addrs: []string{listeners[0].Addr().String(), listeners[len(listeners)-1].Addr().String()}})
	if err := grace.CloseParent(); err != nil {
		return err
	}
	for sig := range signals {
		if sig == syscall.SIGTERM {
			break
		}
		if _, err := net1.StartProcess(); err != nil {
			return err
		}
	}
	return play.Done(nil)
}

// roleBare does the same with the bare system calls, and nothing else. SIGUSR2 starts
// the next process, which says that it could serve, and exits.
func roleBare(cfg play.Config) error {
	inherited := os.Getenv("BARE") != ""
	listeners, err := listenMany(cfg, func(i int, network, addr string) (net.Listener, error) {
		if !inherited {
			return net.Listen(network, addr)
		}
		f := os.NewFile(uintptr(3+i), "")
		defer f.Close()
		return net.FileListener(f)
	})
	if err != nil {
		return err
	}
	for _, l := range listeners {
		go func() { _, _ = l.Accept() }()
	}
	restart := make(chan os.Signal, 1)
	signal.Notify(restart, syscall.SIGUSR2)
	play.Emit(play.Event{Event: play.Serving})
	if inherited {
		return nil
	}
	for range restart {
		files := []uintptr{0, 1, 2}
		for _, l := range listeners {
			raw, err := l.(syscall.Conn).SyscallConn()
			if err != nil {
				return err
			}
			var fd int
			var dupErr error
			err = raw.Control(func(s uintptr) { fd, dupErr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 3) })
			if err = errors.Join(err, dupErr); err != nil {
				return err
			}
			files = append(files, uintptr(fd))
		}
		pid, err := syscall.ForkExec(os.Args[0], os.Args, &syscall.ProcAttr{Env: append(os.Environ(), "BARE=1"), Files: files})
		if err != nil {
			return err
		}
		for _, fd := range files[3:] {
			_ = syscall.Close(int(fd))
		}
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
			return err
		}
	}
	return nil
}

// howMany is n, or less if this process may not have as many descriptors as a restart
// of that many listeners needs.
func howMany(t testing.TB, n int) int {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	needed := uint64(2*n + 2000)
	if limit.Max < needed {
		more := syscall.Rlimit{Cur: needed, Max: needed}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more); err == nil { // as root
			return n
		}
		n = int(limit.Max-2000) / 2
		t.Logf("with %d listeners, since no more than %d descriptors are allowed", n, limit.Max)
	}
	return n
}

// base is where the addresses of many listeners begin.
func base(t testing.TB, network string) string {
	t.Helper()
	if network == "unix" {
		dir, err := os.MkdirTemp("", "grace")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return dir
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Thousands of listeners go from process to process, each to whom has asked for it,
// and the paths of unix sockets with them.
func TestManyListeners(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		n := howMany(t, 10_000)
		base := base(t, network)
		s := testbin.Start(t, manyConfig("many", network, n, base))
		for range 2 {
			pid, _ := restarted(s)
			for i := 0; i < n; i += 997 {
				got := testbin.Ask(t, testbin.Lines(network, manyAddr(network, i, base)), "")
				if want := fmt.Sprint(i, " ", pid); got != want {
					t.Errorf("%s %d is answered by %s, want %s", network, i, got, want)
				}
			}
		}
		pid, _ := s.Newest()
		// A restart that has no descriptors left says how many it needs.
		s.WaitLog(pid, "signals restart and stop this process")
		first := testbin.Lines(network, manyAddr(network, 0, base))
		testbin.Ask(t, first, fmt.Sprintf("limit %d %d", syscall.RLIMIT_NOFILE, n+1000))
		s.Signal(pid, syscall.SIGUSR2)
		e := s.WaitLog(pid, "restart failed")
		var needed, limit int
		_, text, _ := strings.Cut(e.Text, "a restart needs ")
		if _, err := fmt.Sscanf(text, "%d descriptors at once, and this process may have %d", &needed, &limit); err != nil || limit != n+1000 || needed < 2*n || needed > 2*n+100 {
			t.Errorf("without descriptors: %s", e.Text)
		}
		testbin.Ask(t, first, fmt.Sprintf("limit %d %d", syscall.RLIMIT_NOFILE, needed))
		restarted(s)
		pid, _ = s.Newest()
		s.WaitLog(pid, "signals restart and stop this process")
		s.Stop()
		if network == "unix" {
			if left, err := os.ReadDir(base); err != nil || len(left) != 0 {
				t.Errorf("%d paths are left, %v", len(left), err)
			}
		}
	}
}

// What is too long for the environment goes in a table, however the next program comes
// to run.
func TestManyNames(t *testing.T) {
	check := func(n int, base string, pid int) {
		t.Helper()
		for i := 0; i < n; i += 997 {
			got := testbin.Ask(t, testbin.Lines("tcp", manyAddr("tcp", i, base)), "")
			if want := fmt.Sprint(i, " ", pid); got != want {
				t.Errorf("%d is answered by %s, want %s", i, got, want)
			}
		}
	}
	n := howMany(t, 10_000)
	t.Run("KeepPID", func(t *testing.T) {
		base := base(t, "tcp")
		cfg := manyConfig("many", "tcp", n, base)
		cfg.KeepPID = true
		s := testbin.Start(t, cfg)
		pid, _ := s.Newest()
		s.WaitLog(pid, "signals restart and stop this process")
		before := testbin.Ask(t, testbin.Lines("tcp", manyAddr("tcp", 0, base)), "fds")
		for range 2 {
			inPlace(t, s, pid)
			check(n, base, pid)
		}
		testbin.Poll(t, fmt.Sprintf("the %d descriptors from before to be left", len(strings.Fields(before))), func() bool {
			return testbin.Ask(t, testbin.Lines("tcp", manyAddr("tcp", 0, base)), "fds") == before
		})
		s.Stop()
	})
	t.Run("StartProcess", func(t *testing.T) {
		// Any free port: they are found by what was asked for, or not at all.
		s := testbin.Start(t, manyConfig("starts", "tcp", n, "0"))
		_, addrs := s.Newest()
		for range 2 {
			old, _ := s.Restart()
			s.WaitReturned(old)
			s.WaitExit(old)
			pid, again := s.Newest()
			if !slices.Equal(again, addrs) {
				t.Errorf("addresses: %v, want %v", again, addrs)
			}
			for i, addr := range addrs {
				if got, want := testbin.Ask(t, testbin.Lines("tcp", addr), ""), fmt.Sprint(i*(n-1), " ", pid); got != want {
					t.Errorf("%s is answered by %s, want %s", addr, got, want)
				}
			}
		}
		s.Stop()
	})
}

// BenchmarkRestart compares a restart with many listeners with what it would cost by
// the bare system calls, in turn. The figures are medians: milliseconds of a whole
// restart, of the library and of the system calls; the ratio of what each listener adds
// to the restart of a process with one; and the memory that each adds.
func BenchmarkRestart(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		var one, oneBare time.Duration
		var oneKB int
		for _, n := range []int{1, 100, 1000, 10_000} {
			b.Run(fmt.Sprint(network, "/", n), func(b *testing.B) {
				n := howMany(b, n)
				baseA, baseB := base(b, network), base(b, network)
				ours := testbin.Start(b, manyConfig("many", network, n, baseA))
				bare := testbin.Start(b, manyConfig("bare", network, n, baseB))
				var ourTimes, bareTimes []time.Duration
				kb := 0
				for range max(b.N, 5) {
					began := time.Now()
					old, pid := ours.Restart()
					ourTimes = append(ourTimes, time.Since(began))
					ours.WaitReturned(old)
					ours.WaitLog(pid, "signals restart and stop this process")
					kb = testbin.ResidentKB(b, pid)
					first := bare.Events()[0].PID
					n := len(bare.Events())
					began = time.Now()
					bare.Signal(first, syscall.SIGUSR2)
					bare.WaitAfter(n, "the next process", func(e play.Event) bool { return e.Event == play.Serving })
					bareTimes = append(bareTimes, time.Since(began))
				}
				us, them := median(ourTimes), median(bareTimes)
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(us.Microseconds())/1000, "ms/restart")
				b.ReportMetric(float64(them.Microseconds())/1000, "ms/bare")
				if n == 1 {
					one, oneBare, oneKB = us, them, kb
					return
				}
				b.ReportMetric(float64(us-one)/float64(them-oneBare), "ratio/listener")
				b.ReportMetric(float64(kb-oneKB)/float64(n-1), "kB/listener")
			})
		}
	}
}

func median(d []time.Duration) time.Duration {
	sorted := append([]time.Duration(nil), d...)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}

//go:build unix

package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 60 * time.Second

// serve starts a server that counts what it is asked for.
func serve(t *testing.T, path string) (s *Server, asked *atomic.Int64) {
	t.Helper()
	socket, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	asked = new(atomic.Int64)
	s = Serve(socket, func(r Request) Answer {
		asked.Add(1)
		return Answer{Status: json.RawMessage(`{"phase":"serving"}`)}
	})
	t.Cleanup(func() {
		for _, c := range s.Close() {
			c.Close()
		}
	})
	return s, asked
}

func askFor(t *testing.T, path string, r Request) Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a, c, err := Ask(ctx, path, r)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	return a
}

// Nobody but the owner may connect, at no moment, whatever the umask is.
func TestMode(t *testing.T) {
	dir := t.TempDir()
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(dir, "control")
	s, _ := serve(t, path)
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("%v, %v, want a socket with mode 0600", info.Mode(), err)
	}
	if err := s.Restore(); err != nil {
		t.Errorf("Restore of what is there: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v", entries, err)
	}
	s.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the path after Close: %v", err)
	}
}

// Files that are no sockets are not touched.
func TestForeignFile(t *testing.T) {
	dir := t.TempDir()
	for name, create := range map[string]func(path string) error{
		"file":      func(path string) error { return os.WriteFile(path, []byte("mine"), 0o644) },
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"link":      func(path string) error { return os.Symlink(filepath.Join(dir, "nowhere"), path) },
		"pipe":      func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		path := filepath.Join(dir, name)
		if err := create(path); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Listen(path, os.Getpid())
		if err == nil || !strings.Contains(err.Error(), path+": there is a file that is no socket") {
			t.Errorf("%s: Listen = %v", name, err)
		}
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s was touched: %v", name, err)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 4 {
		t.Errorf("the directory has %v", entries)
	}
	long := strings.Repeat("x", maxPath-len(dir)-2)
	if err := os.Mkdir(filepath.Join(dir, long), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none", "control"): "no such file or directory",
		filepath.Join(dir, "file", "control"): "not a directory",
		filepath.Join(dir, long, "c"):         "longer than the",
		filepath.Join(dir, long+"x"):          "",
		filepath.Join(dir, long, ""):          "no socket",
	} {
		s, err := Listen(path)
		if err == nil {
			s.close()
		}
		if fmt.Sprint(err) != "<nil>" && want == "" || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("Listen(%s) = %v, want %v", path, err, want)
		}
	}
}

// What nobody listens on is replaced.
func TestStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	_, asked := serve(t, path)
	askFor(t, path, Request{Command: Status})
	if asked.Load() != 1 {
		t.Error("not asked")
	}
}

// What somebody else listens on is not.
func TestInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	_, asked := serve(t, path)
	_, err := Listen(path)
	if err == nil || !strings.Contains(err.Error(), "in use by") {
		t.Errorf("Listen = %v", err)
	}
	if _, err := Listen(path, os.Getpid()+1); peerKnown(t, path) && err == nil {
		t.Error("the socket of another process was taken")
	}
	before := asked.Load()
	askFor(t, path, Request{Command: Status})
	if asked.Load() != before+1 {
		t.Error("not asked any more")
	}
}

func peerKnown(t *testing.T, path string) bool {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, known := peerPID(c.(*net.UnixConn))
	return known
}

// A process that drains has nothing to be asked for any more.
func TestDrainingGivesWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	socket, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	old := Serve(socket, func(Request) Answer { return Answer{Status: json.RawMessage(`{"phase":"draining"}`)} })
	_, asked := serve(t, path)
	old.Close() // and leaves the path alone
	askFor(t, path, Request{Command: Status})
	if asked.Load() != 1 {
		t.Error("not asked")
	}
}

// From one owner to the next and back there is no moment without an answer.
func TestTakeOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	first, _ := serve(t, path)
	stop := make(chan struct{})
	asking := make(chan error)
	for range 4 {
		go func() {
			for {
				select {
				case <-stop:
					asking <- nil
					return
				default:
				}
				a, c, err := Ask(context.Background(), path, Request{Command: Status})
				if err == nil {
					c.Close()
				}
				if err != nil {
					asking <- fmt.Errorf("%+v, %w", a, err)
					return
				}
			}
		}()
	}
	for range 20 {
		socket, err := Listen(path, os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		second := Serve(socket, func(Request) Answer { return Answer{} })
		// The first one leaves the path alone, and may come back.
		if first.socket.owns() {
			t.Fatal("the path has not changed hands")
		}
		if err := first.Restore(os.Getpid()); err != nil {
			t.Fatal(err)
		}
		second.Close()
		if !first.socket.owns() {
			t.Fatal("the path is not given back")
		}
	}
	close(stop)
	for range 4 {
		// Who connects to a socket that is closed before it was accepted is lost.
		if err := <-asking; err != nil && !errors.Is(err, syscall.ECONNRESET) && !strings.Contains(err.Error(), "gone without an answer") {
			t.Error(err)
		}
	}
	first.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the path after Close: %v", err)
	}
}

// exchange sends text and returns all that comes back.
func exchange(t *testing.T, path, text string, end bool) string {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, text) // it may not be wanted to its end
	if end {
		_ = c.(*net.UnixConn).CloseWrite()
	}
	b, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("%.40q: %v", text, err)
	}
	return string(b)
}

// Rubbish is refused, and nobody is asked.
func TestRubbish(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	_, asked := serve(t, path)
	refused := func(text string, end bool) {
		t.Helper()
		var a Answer
		got := exchange(t, path, text, end)
		if err := json.Unmarshal([]byte(got), &a); err != nil || a.Code != BadRequest || a.Error == "" || a.Version != version || a.PID != os.Getpid() {
			t.Errorf("%.60q: answer %q", text, got)
		}
	}
	stop := `{"version":1,"command":"stop"}`
	for _, line := range rubbish {
		refused(line+"\n", false)
	}
	refused("", true)
	refused(stop, true) // cut off
	refused(stop+"\n"+stop+"\n", false)
	refused(stop+strings.Repeat(" ", maxRequest)+"\n", false)
	refused(strings.Repeat("x", 1<<20), false)
	refused(strings.Repeat("\n", 1<<20), false)
	if got := exchange(t, path, "", false); !strings.Contains(got, "no request within 5s") {
		t.Errorf("who sends nothing is told %q", got)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("asked %d times", n)
	}
	askFor(t, path, Request{Command: Status})
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
}

// So many clients are answered at once and no more, and the others are told.
func TestManyClients(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	_, asked := serve(t, path)
	var clients []net.Conn
	for range 3 * maxClients {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		clients = append(clients, c)
	}
	var mu sync.Mutex
	told := make(map[string]int)
	var readers sync.WaitGroup
	for _, c := range clients {
		readers.Add(1)
		go func() {
			defer readers.Done()
			var a Answer
			line, err := bufio.NewReader(c).ReadBytes('\n')
			if err == nil {
				err = json.Unmarshal(line, &a)
			}
			mu.Lock()
			defer mu.Unlock()
			told[fmt.Sprint(a.Code, err)]++
		}()
	}
	readers.Wait()
	// All have been told: that they are too many, or, after a while, too late.
	busy, late := told[fmt.Sprint(Busy, nil)], told[fmt.Sprint(BadRequest, nil)]
	if busy+late != len(clients) || late < maxClients || busy == 0 {
		t.Errorf("told %v", told)
	}
	if asked.Load() != 0 {
		t.Error("somebody was asked")
	}
	for _, c := range clients {
		c.Close()
	}
	// Who is slow to go still counts.
	for deadline := time.Now().Add(patience); askFor(t, path, Request{Command: Status}).Code == Busy; {
		if time.Now().After(deadline) {
			t.Fatal("busy for ever")
		}
	}
}

// Close waits for those who have asked, and cuts off the others. That of stop stay
// connected.
func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	socket, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	asked, release := make(chan struct{}), make(chan struct{})
	s := Serve(socket, func(r Request) Answer {
		if r.Command == Upgrade {
			close(asked)
			<-release
		}
		return Answer{}
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, stopping, err := Ask(ctx, path, Request{Command: Stop})
	if err != nil {
		t.Fatal(err)
	}
	defer stopping.Close()
	idle, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	upgraded := make(chan error, 1)
	go func() {
		_, c, err := Ask(ctx, path, Request{Command: Upgrade})
		if err == nil {
			c.Close()
		}
		upgraded <- err
	}()
	<-asked
	closed := make(chan []net.Conn)
	go func() { closed <- s.Close() }()
	_ = idle.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadAll(idle); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("who has not asked is not cut off")
	}
	select {
	case <-closed:
		t.Error("Close has not waited")
	default:
	}
	close(release)
	if err := <-upgraded; err != nil {
		t.Error(err)
	}
	held := <-closed
	_ = stopping.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := stopping.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || len(held) != 1 {
		t.Errorf("after stop: %v, and %d connections are held", err, len(held))
	}
	for _, c := range held {
		c.Close()
	}
}

// Ask ends with its context.
func TestAskEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	l, err := net.Listen("unix", path) // which nobody answers on
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("no more patience")
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = bufio.NewReader(c).ReadString('\n')
		cancel(cause)
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}()
	if _, _, err := Ask(ctx, path, Request{Command: Status}); !errors.Is(err, cause) {
		t.Errorf("Ask = %v, want %v", err, cause)
	}
	if _, _, err := Ask(ctx, path, Request{Command: Status}); !errors.Is(err, cause) {
		t.Errorf("Ask with a context that has ended = %v, want %v", err, cause)
	}
}

// Another user gets nothing but that, even if the mode of the file lets him
// connect. Only root can try.
func TestOtherUser(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "control")
	_, asked := serve(t, path)
	if os.Geteuid() != 0 {
		askFor(t, path, Request{Command: Status}) // and we are no other
		return
	}
	for d := dir; d != "/"; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode()&0o1 == 0 && strings.HasPrefix(d, os.TempDir()+"/") {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := askAs(t, 65534, path); !strings.Contains(got, "permission denied") || strings.Contains(got, `"code"`) {
		t.Errorf("another user is told %q, want that he can't connect", got)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := askAs(t, 65534, path); !strings.Contains(got, `"code":"denied"`) || !strings.Contains(got, "permission denied to user 65534") {
		t.Errorf("another user is told %q", got)
	}
	if asked.Load() != 0 {
		t.Error("asked by another user")
	}
	if got := askAs(t, 0, path); !strings.Contains(got, `"status"`) || asked.Load() != 1 {
		t.Errorf("root is told %q", got)
	}
}

// askAs asks for the status as another user: this test binary does.
func askAs(t *testing.T, uid uint32, path string) string {
	t.Helper()
	// Where the binary is, others may not look.
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(filepath.Dir(path), "client")
	if err := os.WriteFile(program, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(program)
	cmd := exec.Command(program)
	cmd.Dir = "/"
	cmd.Env = []string{envAsk + "=" + path, "GORACE=atexit_sleep_ms=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

const envAsk = "GRACE_TEST_ASK"

func TestMain(m *testing.M) {
	path := os.Getenv(envAsk)
	if path == "" {
		os.Exit(m.Run())
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a, _, err := Ask(ctx, path, Request{Command: Status})
	b, _ := json.Marshal(a)
	fmt.Println(string(b), err)
}

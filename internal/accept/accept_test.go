package accept

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// patience is how long a test waits for what must happen.
	patience = 30 * time.Second
	// moment is how long a test looks whether what must not happen does.
	moment = 20 * time.Millisecond
)

func listen(t testing.TB) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// newListener is New with the Close of the listener itself.
func newListener(l net.Listener) *Listener { return New(l, net.Listener.Close) }

// newPatient is newListener, with a Finish that waits for as long as it takes: a loop may
// not get on for a while on a busy machine.
func newPatient(l net.Listener) *Listener {
	p := newListener(l)
	p.drainTimeout, p.calledWithin = time.Hour, time.Hour
	return p
}

type accepted struct {
	conn net.Conn
	err  error
}

// loop accepts until there is an error, which is the last of what it sends.
func loop(l *Listener) <-chan accepted {
	all := make(chan accepted)
	go func() {
		for {
			c, err := l.Accept()
			all <- accepted{c, err}
			if err != nil {
				return
			}
		}
	}()
	return all
}

// wantConn waits for a connection from a loop.
func wantConn(t *testing.T, all <-chan accepted) net.Conn {
	t.Helper()
	select {
	case a := <-all:
		if a.err != nil {
			t.Fatalf("Accept: %v", a.err)
		}
		t.Cleanup(func() { _ = a.conn.Close() })
		return a.conn
	case <-time.After(patience):
		t.Fatal("nothing is accepted")
	}
	return nil
}

func wantError(t *testing.T, all <-chan accepted, want error) {
	t.Helper()
	select {
	case a := <-all:
		if !errors.Is(a.err, want) {
			t.Errorf("Accept returned %v, %v, want %v", a.conn, a.err, want)
		}
	case <-time.After(patience):
		t.Fatal("Accept does not return")
	}
}

// wait waits for a value on c, or for its end.
func wait(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatal(what)
	}
}

// async calls f and returns a channel that is closed when f has returned.
func async(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

// until looks at l until done, called with l.mu held, returns true.
func (l *Listener) until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		ok := done()
		l.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func (l *Listener) untilParked(t *testing.T, n int) {
	t.Helper()
	l.until(t, "the loops do not come back", func() bool { return l.parked == n })
}

func (l *Listener) untilInside(t *testing.T, n int) {
	t.Helper()
	l.until(t, "the loops do not accept", func() bool { return l.inside == n })
}

func TestStarted(t *testing.T) {
	l := newListener(listen(t))
	select {
	case <-l.Started():
		t.Fatal("started before Accept was called")
	default:
	}
	all := loop(l)
	wait(t, "Accept is not noticed", l.Started())
	_ = l.Close()
	wantError(t, all, net.ErrClosed)
	wait(t, "a second look gives something else", l.Started())
}

// A connection that is made while the listener is paused waits in the kernel. It
// is not refused, and not accepted before Resume.
func TestPause(t *testing.T) {
	l := newListener(listen(t))
	all := loop(l)
	dial(t, l)
	wantConn(t, all)

	for range 3 {
		l.Pause(context.Background(), 1)
		c := dial(t, l)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		select {
		case <-all:
			t.Fatal("accepted while paused")
		case <-time.After(moment):
		}
		l.Resume()
		s := wantConn(t, all)
		if s.RemoteAddr().String() != c.LocalAddr().String() {
			t.Errorf("accepted %s, want %s", s.RemoteAddr(), c.LocalAddr())
		}
		if b := make([]byte, 1); readFull(s, b) != nil || b[0] != 'x' {
			t.Errorf("received %q", b)
		}
	}
	_ = l.Close()
	wantError(t, all, net.ErrClosed)
}

func readFull(c net.Conn, b []byte) error {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, err := io.ReadFull(c, b)
	return err
}

// An Accept that is called while paused waits as well, and so does what comes
// after it.
func TestAcceptWhilePaused(t *testing.T) {
	l := newListener(listen(t))
	l.Pause(context.Background(), 0)
	dial(t, l)
	all := loop(l)
	l.untilParked(t, 1)
	select {
	case <-all:
		t.Fatal("accepted while paused")
	case <-time.After(moment):
	}
	l.Resume()
	wantConn(t, all)
	_ = l.Close()
	wantError(t, all, net.ErrClosed)
}

// Pause returns when every loop is back in Accept, so that what it accepted
// before is known to its server.
func TestPauseWaitsForLoops(t *testing.T) {
	const loops = 3
	l := newListener(listen(t))
	var chans []<-chan accepted
	for range loops {
		chans = append(chans, loop(l))
	}
	l.untilInside(t, loops)
	dial(t, l)
	l.untilInside(t, loops-1) // one loop has it and has not come back

	pausing := async(func() { l.Pause(context.Background(), loops) })
	l.untilParked(t, loops-1)
	select {
	case <-pausing:
		t.Fatal("Pause returns while a loop is busy with a connection")
	case <-time.After(moment):
	}
	first := make(chan accepted, loops)
	for _, c := range chans {
		go func() { first <- <-c }() // those of the others end with Close
	}
	_ = wantConn(t, first).Close()
	wait(t, "Pause does not return", pausing)
	_ = l.Close()
}

func TestPauseEnds(t *testing.T) {
	tests := []struct {
		name string
		end  func(l *Listener, cancel func())
	}{
		{"when its context ends", func(_ *Listener, cancel func()) { cancel() }},
		{"on Close", func(l *Listener, _ func()) { _ = l.Close() }},
		{"on Finish", func(l *Listener, _ func()) { _ = l.Finish(true) }},
		{"on Resume", func(l *Listener, _ func()) { l.Resume() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newListener(listen(t))
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			pausing := async(func() { l.Pause(ctx, 1) }) // of a loop that never comes
			l.until(t, "Pause does not begin", func() bool { return l.state == paused })
			tt.end(l, cancel)
			wait(t, "Pause does not return", pausing)
		})
	}
}

// A second Pause must not wait for loops, nor one that comes after Close.
func TestPauseTwice(t *testing.T) {
	l := newListener(listen(t))
	l.Pause(context.Background(), 0)
	wait(t, "the second Pause blocks", async(func() { l.Pause(context.Background(), 1) }))
	l.Resume()
	l.Resume()
	_ = l.Close()
	wait(t, "Pause blocks on a closed listener", async(func() { l.Pause(context.Background(), 1) }))
	wait(t, "Resume blocks on a closed listener", async(l.Resume))
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close, Pause and Resume: %v, want net.ErrClosed", err)
	}
}

// The deadline with which Pause wakes Accept is ours. No Accept returns it, even
// if Resume follows at once.
func TestResumeLeavesNoDeadline(t *testing.T) {
	l := newListener(listen(t))
	const loops = 2
	var chans []<-chan accepted
	for range loops {
		chans = append(chans, loop(l))
	}
	for range 200 {
		l.Pause(context.Background(), rand.IntN(loops+1))
		l.Resume()
	}
	for _, c := range chans {
		select {
		case a := <-c:
			t.Fatalf("Accept returned %v, %v", a.conn, a.err)
		default:
		}
	}
	_ = l.Close()
	for _, c := range chans {
		wantError(t, c, net.ErrClosed)
	}
}

// A Resume that comes too late must not wait for Accept to end.
func TestResumeTwice(t *testing.T) {
	l := newListener(listen(t))
	all := loop(l)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 500 {
		l.Pause(ctx, 1)
		a, b := async(l.Resume), async(l.Resume)
		wait(t, "Resume hangs", a)
		wait(t, "Resume hangs", b)
		l.untilInside(t, 1)
	}
	_ = l.Close()
	wantError(t, all, net.ErrClosed)
}

// A deadline that the program has set itself ends Accept as it would without us.
func TestDeadlineOfTheProgram(t *testing.T) {
	inner := listen(t)
	l := newListener(inner)
	if err := inner.SetDeadline(past); err != nil {
		t.Fatal(err)
	}
	wantError(t, loop(l), os.ErrDeadlineExceeded)

	all := loop2(l)
	wantError(t, all, os.ErrDeadlineExceeded)
	wantError(t, all, os.ErrDeadlineExceeded)
	_ = l.Close()
	for a := range all {
		if errors.Is(a.err, net.ErrClosed) {
			return
		}
	}
	t.Error("Accept does not return net.ErrClosed")
}

// A deadline that is set with ours in between holds when the listener accepts, and
// neither ends a Pause nor is lost by it.
func TestSetDeadline(t *testing.T) {
	for name, set := range map[string]func(t *testing.T, l *Listener, deadline time.Time){
		"before": func(t *testing.T, l *Listener, deadline time.Time) {
			setDeadline(t, l, deadline)
			l.Pause(context.Background(), 0)
		},
		"while paused": func(t *testing.T, l *Listener, deadline time.Time) {
			l.Pause(context.Background(), 0)
			setDeadline(t, l, deadline)
		},
		"twice": func(t *testing.T, l *Listener, deadline time.Time) {
			l.Pause(context.Background(), 0)
			setDeadline(t, l, deadline)
			l.Resume()
			l.Pause(context.Background(), 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newListener(listen(t))
			deadline := time.Now().Add(50 * time.Millisecond)
			set(t, l, deadline)
			all := loop2(l)
			waited := make(chan struct{})
			time.AfterFunc(time.Until(deadline)+moment, func() { close(waited) })
			select {
			case a := <-all:
				t.Fatalf("Accept returns %v, %v while paused", a.conn, a.err)
			case <-waited:
			}
			l.untilParked(t, 1)
			l.Resume()
			wantError(t, all, os.ErrDeadlineExceeded)

			// One that is yet to come, or none, lets connections through.
			l.Pause(context.Background(), 0)
			setDeadline(t, l, time.Now().Add(time.Hour))
			l.Resume()
			dial(t, l)
			for a := range all { // deadlines from before may be left
				if a.err == nil {
					_ = a.conn.Close()
					break
				}
			}
			setDeadline(t, l, past)
			wantError(t, all, os.ErrDeadlineExceeded)
			_ = l.Close()
			for a := range all {
				if errors.Is(a.err, net.ErrClosed) {
					return
				}
			}
			t.Error("Accept does not return net.ErrClosed")
		})
	}
}

func setDeadline(t *testing.T, l *Listener, deadline time.Time) {
	t.Helper()
	if err := l.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
}

// slowToEnter is a listener on a busy machine: Accept begins only when told to.
type slowToEnter struct {
	*net.TCPListener
	called, enter chan struct{}
}

func (l slowToEnter) Accept() (net.Conn, error) {
	l.called <- struct{}{}
	<-l.enter
	return l.TCPListener.Accept()
}

// The deadlines by which Pause and Finish wake Accept are not undone by one that the
// program sets meanwhile.
func TestSetDeadlineLeavesOursAlone(t *testing.T) {
	for name, end := range map[string]struct {
		begin func(*Listener)
		state state
	}{
		"Pause":  {func(l *Listener) { l.Pause(context.Background(), 1) }, paused},
		"Finish": {func(l *Listener) { _ = l.Finish(true) }, draining},
	} {
		t.Run(name, func(t *testing.T) {
			inner := slowToEnter{listen(t), make(chan struct{}, 9), make(chan struct{})}
			l := newPatient(inner)
			all := loop(l)
			wait(t, "Accept is not called", inner.called)
			ended := async(func() { end.begin(l) })
			l.until(t, name+" does not begin", func() bool { return l.state == end.state })
			setDeadline(t, l, time.Now().Add(time.Hour))
			close(inner.enter)
			wait(t, name+" does not return", ended)
			_ = l.Close()
			wantError(t, all, net.ErrClosed)
			if err := l.SetDeadline(past); !errors.Is(err, net.ErrClosed) {
				t.Errorf("SetDeadline after Close: %v, want net.ErrClosed", err)
			}
		})
	}
}

// loop2 accepts until the listener is closed, and then closes the channel.
func loop2(l *Listener) <-chan accepted {
	all := make(chan accepted)
	go func() {
		defer close(all)
		for {
			c, err := l.Accept()
			all <- accepted{c, err}
			if errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()
	return all
}

// The kernel resets what waits for a listener that nobody holds any more. So the
// last one accepts it first, whatever the listener did before.
func TestFinishAcceptsWhatWaits(t *testing.T) {
	for name, prepare := range map[string]func(l *Listener){
		"paused": func(l *Listener) { l.Pause(context.Background(), 0) },
		"open":   func(*Listener) {},
	} {
		for _, loops := range []int{1, 3} {
			t.Run(name, func(t *testing.T) {
				inner := listen(t)
				l := newPatient(inner)
				prepare(l)
				const waiting = 20
				var clients []net.Conn
				for range waiting {
					clients = append(clients, dial(t, l))
				}
				var served sync.WaitGroup
				for range loops {
					served.Add(1)
					go func() {
						defer served.Done()
						for {
							c, err := l.Accept()
							if err != nil {
								if !errors.Is(err, net.ErrClosed) {
									t.Errorf("Accept: %v, want net.ErrClosed", err)
								}
								return
							}
							_, _ = c.Write([]byte("x"))
							_ = c.Close()
						}
					}()
				}
				if err := l.Finish(true); err != nil {
					t.Errorf("Finish: %v", err)
				}
				wait(t, "a loop goes on", async(served.Wait))
				for i, c := range clients {
					if b := make([]byte, 1); readFull(c, b) != nil || b[0] != 'x' {
						t.Errorf("connection %d of %d was reset", i+1, waiting)
					}
				}
				if err := inner.Close(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("the listener is left open: %v", err)
				}
			})
		}
	}
}

// sluggish is a listener on a machine so busy that a goroutine does not get on
// for a while between two steps.
type sluggish struct{ *net.TCPListener }

func (l sluggish) Accept() (net.Conn, error) {
	time.Sleep(20 * time.Millisecond)
	return l.TCPListener.Accept()
}

// What waits is accepted also if no Accept is quick enough for the deadline.
func TestFinishOnABusyMachine(t *testing.T) {
	l := newPatient(sluggish{listen(t)})
	l.Pause(context.Background(), 0)
	const waiting = 3
	for range waiting {
		dial(t, l)
	}
	all := loop(l)
	l.untilParked(t, 1)
	finished := async(func() { _ = l.Finish(true) })
	for range waiting {
		wantConn(t, all)
	}
	wantError(t, all, net.ErrClosed)
	wait(t, "Finish does not return", finished)
}

// A loop that is mostly busy with what it has accepted still gets all of it,
// though it takes longer than Finish waits for a loop that does not come.
func TestFinishWaitsForABusyLoop(t *testing.T) {
	l := newListener(listen(t))
	l.drainTimeout, l.calledWithin = time.Hour, 500*time.Millisecond
	l.Pause(context.Background(), 0)
	const waiting = 20
	for range waiting {
		dial(t, l)
	}
	finished := async(func() { _ = l.Finish(true) })
	l.until(t, "Finish does not begin", func() bool { return l.state == draining })
	for i := range waiting {
		c, err := l.Accept()
		if err != nil {
			t.Fatalf("connection %d of %d: %v", i+1, waiting, err)
		}
		_ = c.Close()
		time.Sleep(l.calledWithin * 3 / 2 / waiting)
	}
	wait(t, "Finish does not return", finished)
}

// slowToLeave is a listener on such a machine as well: a deadline wakes Accept,
// which gets on only when told to.
type slowToLeave struct {
	*net.TCPListener
	woken, leave chan struct{}
}

func (l slowToLeave) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept()
	if err != nil {
		l.woken <- struct{}{}
		<-l.leave
	}
	return c, err
}

// An Accept that a Pause has woken does not return the deadline of it, however
// soon Resume follows.
func TestResumeWaitsForAccept(t *testing.T) {
	inner := slowToLeave{listen(t), make(chan struct{}, 9), make(chan struct{})}
	l := newListener(inner)
	all := loop(l)
	l.untilInside(t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.Pause(ctx, 1)
	wait(t, "Pause does not wake Accept", inner.woken)
	resumed := async(l.Resume)
	select {
	case <-resumed:
		t.Error("Resume does not wait for Accept")
	case <-time.After(moment):
	}
	close(inner.leave)
	wait(t, "Resume does not return", resumed)
	dial(t, l)
	wantConn(t, all)
	_ = l.Close()
	wantError(t, all, net.ErrClosed)
}

// The deadline of a Pause that did not wait says nothing about what waits.
func TestFinishDuringPause(t *testing.T) {
	inner := slowToLeave{listen(t), make(chan struct{}, 9), make(chan struct{})}
	l := newPatient(inner)
	all := loop(l)
	l.untilInside(t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.Pause(ctx, 1)
	wait(t, "Pause does not wake Accept", inner.woken)
	dial(t, l)
	finished := async(func() { _ = l.Finish(true) })
	l.until(t, "Finish does not begin", func() bool { return l.state == draining })
	close(inner.leave)
	wantConn(t, all)
	wantError(t, all, net.ErrClosed)
	wait(t, "Finish does not return", finished)
}

// Another process goes on accepting what waits.
func TestFinishOfOneOfSeveral(t *testing.T) {
	inner := listen(t)
	f, err := inner.File() // the other process
	if err != nil {
		t.Fatal(err)
	}
	other, err := net.FileListener(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_ = other.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	l := newListener(inner)
	all := loop(l)
	l.Pause(context.Background(), 1)
	c := dial(t, l)
	if err := l.Finish(false); err != nil {
		t.Errorf("Finish: %v", err)
	}
	wantError(t, all, net.ErrClosed)
	s, err := other.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.RemoteAddr().String() != c.LocalAddr().String() {
		t.Errorf("the other process gets %s, want %s", s.RemoteAddr(), c.LocalAddr())
	}
}

// Where nobody calls Accept there is nothing to wait for.
func TestFinishWithoutAccept(t *testing.T) {
	for name, prepare := range map[string]func(l *Listener){
		"paused":  func(l *Listener) { l.Pause(context.Background(), 0) },
		"open":    func(*Listener) {},
		"waiting": func(l *Listener) { dial(t, l) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newListener(listen(t))
			l.drainTimeout = time.Hour
			prepare(l)
			wait(t, "Finish does not return", async(func() {
				if err := l.Finish(true); err != nil {
					t.Errorf("Finish: %v", err)
				}
			}))
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept: %v, want net.ErrClosed", err)
			}
		})
	}
}

// New connections may never stop coming. Finish does.
func TestFinishUnderLoad(t *testing.T) {
	inner := listen(t)
	l := newListener(inner)
	all := loop2(l)
	stop := make(chan struct{})
	clients := async(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			c, err := net.Dial("tcp", inner.Addr().String())
			if err != nil {
				return // closed at last
			}
			_ = c.Close()
		}
	})
	wantConn(t, all)
	served := async(func() {
		for a := range all {
			if a.err == nil {
				_ = a.conn.Close()
			}
		}
	})
	wait(t, "Finish does not return", async(func() { _ = l.Finish(true) }))
	wait(t, "the loop goes on", served)
	close(stop)
	wait(t, "the clients go on", clients)
}

func TestFinishTwice(t *testing.T) {
	l := newListener(listen(t))
	all := loop(l)
	var calls []<-chan struct{}
	for i := range 4 {
		calls = append(calls, async(func() {
			if err := l.Finish(i%2 == 0); err != nil {
				t.Errorf("Finish: %v", err)
			}
		}))
	}
	for _, c := range calls {
		wait(t, "Finish does not return", c)
	}
	wantError(t, all, net.ErrClosed)
}

// Close wakes who is in Accept, and who waits for Resume.
func TestClose(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, l *Listener, loops int){
		"blocked": func(t *testing.T, l *Listener, loops int) { l.untilInside(t, loops) },
		"parked":  func(_ *testing.T, l *Listener, loops int) { l.Pause(context.Background(), loops) },
	} {
		t.Run(name, func(t *testing.T) {
			inner := listen(t)
			calls := 0
			l := New(inner, func(l net.Listener) error {
				calls++
				return l.Close()
			})
			const loops = 3
			var chans []<-chan accepted
			for range loops {
				chans = append(chans, loop(l))
			}
			prepare(t, l, loops)
			for range 2 {
				if err := l.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
			if err := l.Finish(true); err != nil || calls != 1 {
				t.Errorf("Finish after Close: %v; %d calls of the inner Close, want 1", err, calls)
			}
			for _, c := range chans {
				wantError(t, c, net.ErrClosed)
			}
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept after Close: %v, want net.ErrClosed", err)
			}
			if err := inner.Close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the listener is left open: %v", err)
			}
		})
	}
}

// The error of Close is the one of the listener, each time.
func TestCloseError(t *testing.T) {
	inner := listen(t)
	_ = inner.Close()
	l := newListener(inner)
	first := l.Close()
	if !errors.Is(first, net.ErrClosed) {
		t.Errorf("Close: %v, want net.ErrClosed", first)
	}
	if second := l.Close(); second != first {
		t.Errorf("the second Close: %v, want %v", second, first)
	}
	if err := l.Finish(true); err != first {
		t.Errorf("Finish after Close: %v, want %v", err, first)
	}
}

// faulty is a listener whose Accept fails.
type faulty struct {
	net.Listener
	err error
}

func (l faulty) Accept() (net.Conn, error)     { return nil, l.err }
func (l faulty) SetDeadline(t time.Time) error { return nil }

func TestAcceptAllocatesNothing(t *testing.T) {
	l := newListener(faulty{})
	if n := testing.AllocsPerRun(100, func() { _, _ = l.Accept() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Other errors are the program's business in any state.
func TestAcceptError(t *testing.T) {
	want := errors.New("too many open files")
	l := newListener(faulty{listen(t), want})
	for range 2 {
		if _, err := l.Accept(); err != want {
			t.Errorf("Accept: %v, want %v", err, want)
		}
	}
	l.Pause(context.Background(), 0)
	all := loop(l)
	l.untilParked(t, 1)
	finished := async(func() { _ = l.Finish(true) })
	wantError(t, all, want)
	wait(t, "Finish does not return", finished)
}

// undying is a listener that has SetDeadline, and does not do it.
type undying struct{ net.Listener }

func (undying) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// A listener without SetDeadline can't be woken; it must not hang either.
func TestWithoutDeadline(t *testing.T) {
	for name, without := range map[string]func(net.Listener) net.Listener{
		"no method": func(l net.Listener) net.Listener { return struct{ net.Listener }{l} },
		"error":     func(l net.Listener) net.Listener { return undying{l} },
	} {
		t.Run(name, func(t *testing.T) {
			l := newListener(without(listen(t)))
			all := loop(l)
			l.untilInside(t, 1)
			wait(t, "Pause blocks", async(func() { l.Pause(context.Background(), 1) }))
			if err := l.SetDeadline(past); err != os.ErrNoDeadline {
				t.Errorf("SetDeadline: %v, want os.ErrNoDeadline", err)
			}
			dial(t, l)
			wantConn(t, all)
			wait(t, "Resume blocks", async(l.Resume))
			dial(t, l)
			wantConn(t, all)
			wait(t, "Finish blocks", async(func() { _ = l.Finish(true) }))
			wantError(t, all, net.ErrClosed)
		})
	}
}

// Whatever comes together, no connection is lost and nothing hangs: all that
// were made before Finish are accepted.
func TestHammer(t *testing.T) {
	for range 5 {
		l := newPatient(listen(t))
		const loops, clients, each = 3, 4, 25
		var got, closed atomic.Int64
		var serving, dialing, pausing sync.WaitGroup
		for range loops {
			serving.Add(1)
			go func() {
				defer serving.Done()
				for a := range loop2(l) {
					switch {
					case a.err == nil:
						got.Add(1)
						_ = a.conn.Close()
					case errors.Is(a.err, net.ErrClosed):
						closed.Add(1)
					default:
						t.Errorf("Accept: %v", a.err)
					}
				}
			}()
		}
		for range clients {
			dialing.Add(1)
			go func() {
				defer dialing.Done()
				for range each {
					c, err := net.Dial("tcp", l.Addr().String())
					if err != nil {
						t.Errorf("refused: %v", err)
						return
					}
					_ = c.Close()
				}
			}()
		}
		stop := make(chan struct{})
		for range 2 {
			pausing.Add(1)
			go func() {
				defer pausing.Done()
				for {
					select {
					case <-stop:
						return
					default:
					}
					ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
					l.Pause(ctx, rand.IntN(loops+1))
					cancel()
					l.Resume()
				}
			}()
		}
		wait(t, "the clients hang", async(dialing.Wait))
		close(stop)
		wait(t, "Pause or Resume hangs", async(pausing.Wait))
		wait(t, "Finish hangs", async(func() { _ = l.Finish(true) }))
		wait(t, "the loops hang", async(serving.Wait))
		if got.Load() != clients*each || closed.Load() != loops {
			t.Fatalf("%d of %d connections accepted, %d of %d loops ended", got.Load(), clients*each, closed.Load(), loops)
		}
	}
}

// Close at any moment ends all calls.
func TestHammerClose(t *testing.T) {
	for range 50 {
		l := newListener(listen(t))
		var wg sync.WaitGroup
		do := func(f func()) {
			wg.Add(1)
			go func() {
				defer wg.Done()
				f()
			}()
		}
		for range 3 {
			do(func() {
				for a := range loop2(l) {
					if a.err != nil && !errors.Is(a.err, net.ErrClosed) {
						t.Errorf("Accept: %v", a.err)
					}
				}
			})
			do(func() { l.Pause(context.Background(), 3) })
			do(l.Resume)
		}
		do(func() { _ = l.Finish(true) })
		do(func() { _ = l.Close() })
		wait(t, "something hangs", async(wg.Wait))
	}
}

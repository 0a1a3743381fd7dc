//go:build unix

package handoff

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// joined reports whether a and b are the ends of one connection.
func joined(t *testing.T, a, b net.Conn) {
	t.Helper()
	_ = b.SetDeadline(time.Now().Add(patience))
	for _, dir := range []struct{ from, to net.Conn }{{a, b}, {b, a}} {
		if _, err := io.WriteString(dir.from, "hello"); err != nil {
			t.Error(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(dir.to, got); err != nil || string(got) != "hello" {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

// ended reports an error unless nobody holds the other end of c.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) || err == nil {
		t.Errorf("read %d, %v, want the end of the connection", n, err)
	}
}

// descriptors counts how often each file is open, where that is known.
func descriptors(t *testing.T) map[string]int {
	t.Helper()
	files := make(map[string]int)
	if runtime.GOOS != "linux" {
		return files
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if file, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			files[file]++
		}
	}
	return files
}

// noneLeaked reports files that are open more often than before. There may be
// fewer: the garbage collector closes what other tests have left.
func noneLeaked(t *testing.T, before map[string]int) {
	t.Helper()
	for file, n := range descriptors(t) {
		if n > before[file] {
			t.Errorf("%s is open %d times, was %d times", file, n, before[file])
		}
	}
}

// into returns a function for TakeConns that takes every connection.
func into(c chan<- net.Conn) func([]*Descriptor) []bool {
	return each(func(conn net.Conn) bool {
		c <- conn
		return true
	})
}

// each returns a function for TakeConns that makes connections and asks take for each.
func each(take func(net.Conn) bool) func([]*Descriptor) []bool {
	return func(descriptors []*Descriptor) []bool {
		taken := make([]bool, len(descriptors))
		conns, _ := Conns(descriptors)
		for i, conn := range conns {
			if conn == nil {
				continue
			}
			if taken[i] = take(conn); !taken[i] {
				_ = conn.Close()
			}
		}
		return taken
	}
}

func TestPass(t *testing.T) {
	f := newFamily(t, "tcp", "unix", "tcp")
	before := descriptors(t)
	taken := make([]chan net.Conn, 3)
	for i, l := range f.theirs {
		taken[i] = make(chan net.Conn, 1)
		f.child.TakeConns(l, into(taken[i]))
	}
	f.run(t)
	for i, l := range f.ours {
		if !f.parent.Takes(l) {
			t.Fatalf("listener %d: connections are not taken", i)
		}
		client, server := connect(t, l)
		if !f.parent.Pass(l, server.(syscall.Conn))[0] {
			t.Fatalf("listener %d: not taken", i)
		}
		_ = server.Close() // not the connection
		conn := wait(t, taken[i], "the connection")
		if got, want := conn.LocalAddr().Network(), l.Addr().Network(); got != want {
			t.Errorf("listener %d: it is of %s, want %s", i, got, want)
		}
		if _, tcp := conn.(*net.TCPConn); tcp != (l.Addr().Network() == "tcp") {
			t.Errorf("listener %d: it is a %T", i, conn)
		}
		fd := fdOf(t, conn)
		if !nonblocking(t, fd) || !closeOnExec(t, fd) {
			t.Errorf("listener %d: the connection is blocking, or leaks into processes that the child starts", i)
		}
		joined(t, client, conn)
		_ = conn.Close()
		ended(t, client)
		_ = client.Close()
	}
	noneLeaked(t, before)
}

// A connection that the child does not want is the parent's as before.
func TestPassRefused(t *testing.T) {
	f := newFamily(t, "tcp", "unix", "tcp", "tcp")
	f.child.TakeConns(f.theirs[0], each(func(net.Conn) bool { return false }))
	f.child.TakeConns(f.theirs[1], each(func(net.Conn) bool { return false }))
	f.child.TakeConns(f.theirs[3], each(func(net.Conn) bool { t.Error("asked about a listener that it has closed"); return true }))
	_ = f.child.Close(f.theirs[3])
	f.run(t)
	unknown := listen(t, "tcp", "127.0.0.1:0")
	for name, tt := range map[string]struct {
		l     net.Listener
		asked bool
	}{
		"tcp":          {f.ours[0], true},
		"unix":         {f.ours[1], true},
		"never wanted": {f.ours[2], false},
		"closed there": {f.ours[3], false},
		"unknown":      {unknown, false},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := connect(t, tt.l)
			before := descriptors(t)
			if got := f.parent.Takes(tt.l); got != tt.asked {
				t.Errorf("Takes is %t, want %t", got, tt.asked)
			}
			if f.parent.Pass(tt.l, server.(syscall.Conn))[0] {
				t.Error("it is said to be taken")
			}
			noneLeaked(t, before)
			if !nonblocking(t, fdOf(t, server)) {
				t.Error("the connection is blocking now")
			}
			joined(t, client, server)
			_ = server.Close()
			ended(t, client)
		})
	}
}

// A child that does not hold the sockets any more is given nothing.
func TestPassToNobody(t *testing.T) {
	f := newFamily(t, "tcp")
	f.child.TakeConns(f.theirs[0], each(func(net.Conn) bool { t.Error("asked"); return true }))
	l := f.ours[0]
	client, server := connect(t, l)
	pass := func(when string) {
		t.Helper()
		if f.parent.Takes(l) || f.parent.Pass(l, server.(syscall.Conn))[0] {
			t.Errorf("%s it takes a connection", when)
		}
	}
	pass("before it is ready")
	f.run(t)
	f.parent.Release()
	pass("after it has died")
	f.parent.Hold("takes=0")
	f.parent.Replaced(812)
	pass("after it was replaced")
	joined(t, client, server)
}

// A closed connection can't be passed, and does not keep the others from it.
func TestPassClosed(t *testing.T) {
	f := newFamily(t, "tcp")
	taken := make(chan net.Conn, 1)
	f.child.TakeConns(f.theirs[0], into(taken))
	f.run(t)
	l := f.ours[0]
	_, closed := connect(t, l)
	_ = closed.Close()
	if f.parent.Pass(l, closed.(syscall.Conn))[0] {
		t.Error("a closed connection is said to be taken")
	}
	client, server := connect(t, l)
	if !f.parent.Pass(l, server.(syscall.Conn))[0] {
		t.Fatal("not taken")
	}
	joined(t, client, wait(t, taken, "the connection"))
}

// Many calls at once go together, and none gets the answer of another.
func TestPassMany(t *testing.T) {
	f := newFamily(t, "tcp", "unix", "tcp")
	before := descriptors(t)
	const n = 200
	type arrived struct {
		conn     net.Conn
		position int
	}
	taken := make(chan arrived, n)
	refuse := make(map[int]bool) // by the order in which they come
	for i := 0; i < n; i += 3 {
		refuse[i] = true
	}
	count := 0 // take is called by one goroutine
	for i, l := range f.theirs {
		f.child.TakeConns(l, each(func(conn net.Conn) bool {
			count++
			if refuse[count-1] {
				return false
			}
			taken <- arrived{conn, i}
			return true
		}))
	}
	f.run(t)
	clients, servers := make([]net.Conn, n), make([]net.Conn, n)
	for i := range n {
		clients[i], servers[i] = connect(t, f.ours[i%3])
	}
	results := make([]bool, n)
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		all.Add(1)
		go func() {
			defer all.Done()
			<-start
			results[i] = f.parent.Pass(f.ours[i%3], servers[i].(syscall.Conn))[0]
		}()
	}
	close(start)
	answered := make(chan struct{})
	go func() { all.Wait(); close(answered) }()
	wait(t, answered, "all answers")
	close(taken)

	// Each client says who it is. Those that were refused are with the parent.
	for i, c := range clients {
		fmt.Fprintf(c, "%04d", i)
	}
	who := func(c net.Conn) int {
		var name [4]byte
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(c, name[:]); err != nil {
			t.Error(err)
		}
		var i int
		if _, err := fmt.Sscanf(string(name[:]), "%d", &i); err != nil {
			t.Error(err)
		}
		return i
	}
	arrivedOf := make(map[int]bool)
	for a := range taken {
		i := who(a.conn)
		if a.position != i%3 {
			t.Errorf("connection %d has come to listener %d", i, a.position)
		}
		arrivedOf[i] = true
		_ = a.conn.Close()
	}
	for i, ok := range results {
		if ok != arrivedOf[i] {
			t.Errorf("connection %d is said to be taken: %t, and was: %t", i, ok, arrivedOf[i])
		}
		if !ok && who(servers[i]) != i {
			t.Errorf("connection %d is another one now", i)
		}
		_ = servers[i].Close()
		ended(t, clients[i])
		_ = clients[i].Close()
	}
	if len(arrivedOf) != n-len(refuse) {
		t.Errorf("%d have arrived, want %d", len(arrivedOf), n-len(refuse))
	}
	if f.parent.passer.sending || len(f.parent.passer.waiting) != 0 {
		t.Error("something is left to send")
	}
	noneLeaked(t, before)
}

// script plays the child by hand: the test reads what it is asked, and answers.
func script(t *testing.T) (f *family, l net.Listener) {
	t.Helper()
	f = newFamily(t, "tcp")
	f.parent.Hold("takes=0")
	f.read(t)
	return f, f.ours[0]
}

// asked waits for a message from the parent.
func (f *family) asked(t *testing.T) Message {
	t.Helper()
	for {
		if m, ok := f.child.control.message(); ok {
			return m
		}
		if !f.child.control.fill() {
			t.Fatal("the parent says nothing")
		}
	}
}

// The child dies when connections are on their way to it.
func TestPassAndTheChildDies(t *testing.T) {
	f, l := script(t)
	const n = maxRights + 10 // the last of them were not sent yet
	clients, servers := make([]net.Conn, n), make([]net.Conn, n)
	results := make(chan bool, n)
	for i := range n {
		clients[i], servers[i] = connect(t, l)
		go func() { results <- f.parent.Pass(l, servers[i].(syscall.Conn))[0] }()
	}
	if m := f.asked(t); m.Word != Take {
		t.Fatalf("asked %q", m)
	}
	f.child.control.close()
	f.child.control.closeFDs() // as the kernel does
	for range n {
		if wait(t, results, "an answer") {
			t.Error("said to be taken by a child that has died")
		}
	}
	for i := range n {
		joined(t, clients[i], servers[i])
	}
	// Later calls find nobody.
	if f.parent.Pass(l, servers[0].(syscall.Conn))[0] {
		t.Error("said to be taken by a child that has died before")
	}
}

// The child is killed by this process, which does not need it any more, while
// connections are on their way to it.
func TestPassAndTheChildIsKilled(t *testing.T) {
	f, l := script(t)
	const n = maxRights + 10
	clients, servers := make([]net.Conn, n), make([]net.Conn, n)
	results := make(chan bool, n)
	for i := range n {
		clients[i], servers[i] = connect(t, l)
		go func() { results <- f.parent.Pass(l, servers[i].(syscall.Conn))[0] }()
	}
	f.parent.closeControl()
	for range n {
		if wait(t, results, "an answer") {
			t.Error("said to be taken by a child that was killed")
		}
	}
	for i := range n {
		joined(t, clients[i], servers[i])
	}
}

// What the child has said last counts, also if it is gone when that is read.
func TestPassAndTheChildAnswersLast(t *testing.T) {
	f, l := script(t)
	_, server := connect(t, l)
	result := make(chan bool, 1)
	go func() { result <- f.parent.Pass(l, server.(syscall.Conn))[0] }()
	id, _, _ := strings.Cut(f.asked(t).Args, " ")
	if err := f.child.control.send(Took, id, "1"); err != nil {
		t.Fatal(err)
	}
	f.child.control.close()
	if !wait(t, result, "the answer") {
		t.Error("a connection that was taken is said not to be")
	}
}

// Also if both are there when it is looked for.
func TestPassAndTheLastAnswerWaits(t *testing.T) {
	for range 20 {
		f := newFamily(t, "tcp")
		f.parent.Hold("takes=0")
		f.parent.passer.took <- Message{Took, "1 1"}
		close(f.parent.passer.ended)
		_, server := connect(t, f.ours[0])
		if !f.parent.Pass(f.ours[0], server.(syscall.Conn))[0] {
			t.Fatal("a connection that was taken is said not to be")
		}
	}
}

// Only the answer to what was asked counts.
func TestPassAndTheAnswerIsOdd(t *testing.T) {
	tests := []struct {
		name   string
		answer string // %s is the id
		taken  bool
	}{
		{"yes", "took %s 1\n", true},
		{"no", "took %s 0\n", false},
		{"too long", "took %s 111\n", true},
		{"no verdicts", "took %s \n", false},
		{"no verdicts and no space", "took %s\n", false},
		{"another verdict", "took %s x\n", false},
		{"end of file", "", false},
		{"another id", "took 99%s 1\n", false},
		{"no id", "took\n", false},
		{"a word that nobody knows", "news %s 1\n", false},
		{"yes after news", "news 7\ntook %s 1\n", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, l := script(t)
			client, server := connect(t, l)
			result := make(chan bool, 1)
			go func() { result <- f.parent.Pass(l, server.(syscall.Conn))[0] }()
			m := f.asked(t)
			id, position, _ := strings.Cut(m.Args, " ")
			if m.Word != Take || position != "0" {
				t.Errorf("asked %q", m)
			}
			answer := tt.answer
			if strings.Contains(answer, "%s") {
				answer = fmt.Sprintf(answer, id)
			}
			if _, err := io.WriteString(f.child.control.conn, answer); err != nil {
				t.Fatal(err)
			}
			_ = f.child.control.conn.CloseWrite()
			if got := wait(t, result, "the answer"); got != tt.taken {
				t.Errorf("taken is %t, want %t", got, tt.taken)
			}
			joined(t, client, server) // it is still open here in any case
		})
	}
}

// An answer that is too short says no for those that it lacks.
func TestPassAndTheVerdictIsShort(t *testing.T) {
	f, l := script(t)
	_, first := connect(t, l)
	firstResult := make(chan bool, 1)
	go func() { firstResult <- f.parent.Pass(l, first.(syscall.Conn))[0] }()
	id, _, _ := strings.Cut(f.asked(t).Args, " ")
	// These wait together for the end of the first.
	const n = 3
	results := make(chan bool, n)
	for range n {
		_, server := connect(t, l)
		go func() { results <- f.parent.Pass(l, server.(syscall.Conn))[0] }()
	}
	p := &f.parent.passer
	for waiting := 0; waiting < n; runtime.Gosched() {
		p.mu.Lock()
		waiting = len(p.waiting)
		p.mu.Unlock()
	}
	_ = f.child.control.send(Took, id, "1")
	m := f.asked(t)
	if again, _, _ := strings.Cut(m.Args, " "); again == id {
		t.Errorf("two messages have the id %s", id)
	}
	id, positions, _ := strings.Cut(m.Args, " ")
	if positions != "0,0,0" || len(f.child.control.fds) != n+1 {
		t.Errorf("asked %q with %d descriptors in all, want three connections in one message", m, len(f.child.control.fds))
	}
	f.child.control.closeFDs()
	_ = f.child.control.send(Took, id, "01")
	yes := 0
	for range n {
		if wait(t, results, "an answer") {
			yes++
		}
	}
	if yes != 1 {
		t.Errorf("%d are said to be taken, want one", yes)
	}
	if !wait(t, firstResult, "the first answer") { // that call has sent the others
		t.Error("the first one is said not to be taken")
	}
}

// takeScript plays the parent by hand. verdict sends what is given with
// descriptors of connections, and returns the answer.
type takeScript struct {
	*family
	taken   chan net.Conn
	answers chan Message
}

func newTakeScript(t *testing.T) *takeScript {
	t.Helper()
	f := newFamily(t, "tcp", "unix")
	s := &takeScript{f, make(chan net.Conn, 10), make(chan Message, 10)}
	f.child.TakeConns(f.theirs[0], into(s.taken))
	f.child.ready = true
	go func() {
		defer close(f.done)
		f.child.watchParent()
	}()
	go func() {
		defer close(s.answers)
		f.parent.control.receive(func(m Message) bool {
			s.answers <- m
			return true
		})
	}()
	t.Cleanup(s.end)
	return s
}

// end is the end of the parent, which the child has seen when it returns.
func (s *takeScript) end() {
	s.parent.control.close()
	<-s.done
}

// send sends text in one write, with one end of each connection.
func (s *takeScript) send(t *testing.T, text string, conns ...net.Conn) {
	t.Helper()
	var fds []int
	for _, c := range conns {
		fds = append(fds, fdOf(t, c))
	}
	if err := sendRights(s.parent.control.conn, text, fds); err != nil {
		t.Fatal(err)
	}
}

func (s *takeScript) answer(t *testing.T) string {
	t.Helper()
	m := wait(t, s.answers, "the answer")
	if m.Word != Took {
		t.Fatalf("got %q", m)
	}
	return m.Args
}

func TestTake(t *testing.T) {
	tests := []struct {
		name  string
		sent  string
		conns int // that go with it
		want  string
		taken int
	}{
		{"one", "take 1 0\n", 1, "1 1", 1},
		{"three", "take 1 0,0,0\n", 3, "1 111", 3},
		{"not wanted there", "take 1 1\n", 1, "1 0", 0},
		{"one of two", "take 1 1,0\n", 2, "1 01", 1},
		{"rubbish among them", "take 1 x,-1,99,0,,1 0\n", 6, "1 000100", 1},
		{"large numbers", "take 1 9223372036854775807,99999999999999999999\n", 2, "1 00", 0},
		{"descriptors are missing", "take 1 0,0,0\n", 2, "1 000", 0},
		{"no descriptor", "take 1 0,0\n", 0, "1 00", 0},
		{"no position", "take 1 \n", 0, "1 ", 0},
		{"no position and no space", "take 1\n", 0, "1 ", 0},
		{"no id", "take\n", 0, " ", 0},
		{"odd id", "take a=b 0\n", 1, "a=b 1", 1},
		{"a line end of two", "take 1 0\r\n", 1, "1 1", 1},
		{"after another message", "main\nnews\ntake 1 0\n", 1, "1 1", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newTakeScript(t)
			var clients, servers []net.Conn
			for range tt.conns {
				client, server := connect(t, s.ours[0])
				clients, servers = append(clients, client), append(servers, server)
			}
			before := descriptors(t)
			s.send(t, tt.sent, servers...)
			for _, c := range servers {
				_ = c.Close()
			}
			if got := s.answer(t); got != tt.want {
				t.Errorf("the answer is %q, want %q", got, tt.want)
			}
			if len(s.taken) != tt.taken {
				t.Fatalf("%d are taken, want %d", len(s.taken), tt.taken)
			}
			// Only what was taken is still open.
			noneLeaked(t, before)
			_, verdicts, _ := strings.Cut(tt.want, " ")
			for i, client := range clients {
				if verdicts[i] == '1' {
					conn := <-s.taken
					joined(t, client, conn)
					_ = conn.Close()
				}
				ended(t, client)
			}
		})
	}
}

// More descriptors than positions are closed with the control socket, at the
// latest.
func TestTakeOfTooMany(t *testing.T) {
	s := newTakeScript(t)
	var clients, servers []net.Conn
	for range 3 {
		client, server := connect(t, s.ours[0])
		clients, servers = append(clients, client), append(servers, server)
	}
	before := descriptors(t)
	s.send(t, "take 1 0\n", servers...)
	for _, c := range servers {
		_ = c.Close()
	}
	if got := s.answer(t); got != "1 1" {
		t.Errorf("the answer is %q", got)
	}
	conn := wait(t, s.taken, "the connection")
	joined(t, clients[0], conn)
	_ = conn.Close()
	s.end()
	for _, c := range clients {
		ended(t, c)
	}
	noneLeaked(t, before)
}

// A stream has no messages: a line may come in many pieces, or with others.
func TestTakeInPieces(t *testing.T) {
	s := newTakeScript(t)
	clients, servers := make([]net.Conn, 2), make([]net.Conn, 2)
	for i := range clients {
		clients[i], servers[i] = connect(t, s.ours[0])
	}
	text := "take 77 0,0\n"
	s.send(t, text[:1], servers...) // the descriptors are with the first byte
	for i := 1; i < len(text); i++ {
		s.send(t, text[i:i+1])
	}
	if got := s.answer(t); got != "77 11" {
		t.Errorf("the answer is %q", got)
	}
	for _, c := range clients {
		joined(t, c, wait(t, s.taken, "a connection"))
	}
}

func TestTakeTogether(t *testing.T) {
	// Two that are sent before the first is read.
	t.Run("sent", func(t *testing.T) {
		f := newFamily(t, "tcp")
		taken := make(chan net.Conn, 3)
		f.child.TakeConns(f.theirs[0], into(taken))
		f.child.ready = true
		s := &takeScript{f, taken, nil}
		clients, servers := make([]net.Conn, 3), make([]net.Conn, 3)
		for i := range clients {
			clients[i], servers[i] = connect(t, f.ours[0])
		}
		s.send(t, "news\ntake 1 0,0\n", servers[:2]...)
		s.send(t, "take 2 0\nmain\n", servers[2])
		_ = f.parent.control.conn.CloseWrite()
		f.child.watchParent() // up to the end
		want := []Message{{Took, "1 11"}, {Took, "2 1"}}
		if got := received(f.parent.control); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		for _, c := range clients {
			joined(t, c, wait(t, taken, "a connection"))
		}
	})
	// Two whose descriptors have come before the first is answered, as some
	// systems may deliver them.
	t.Run("received", func(t *testing.T) {
		f := newFamily(t, "tcp")
		taken := make(chan net.Conn, 3)
		f.child.TakeConns(f.theirs[0], into(taken))
		c := f.child.control
		clients := make([]net.Conn, 3)
		for i := range clients {
			client, server := connect(t, f.ours[0])
			fd, err := dup(server.(syscall.Conn))
			if err != nil {
				t.Fatal(err)
			}
			clients[i], c.fds = client, append(c.fds, fd)
		}
		c.buf = []byte("take 1 0,0\ntake 2 0\n")
		for _, want := range []string{"1 11", "2 1"} {
			m, ok := c.message()
			if !ok {
				t.Fatal("no message")
			}
			f.child.takeConns(c, m.Args)
			f.read1(t, Message{Took, want})
		}
		if len(c.fds) != 0 {
			t.Errorf("%d descriptors are left", len(c.fds))
		}
		for _, client := range clients {
			joined(t, client, wait(t, taken, "a connection"))
		}
	})
}

// read1 reads one message of the child.
func (f *family) read1(t *testing.T, want Message) {
	t.Helper()
	f.parent.control.receive(func(m Message) bool {
		if m != want {
			t.Errorf("got %q, want %q", m, want)
		}
		return false
	})
}

// What is no connection is not taken, and stops nothing.
func TestTakeOfOtherFiles(t *testing.T) {
	s := newTakeScript(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	client, server := connect(t, s.ours[0])
	before := descriptors(t)
	if err := sendRights(s.parent.control.conn, "take 1 0,0\n", []int{fdOf(t, w), fdOf(t, server)}); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	_ = server.Close()
	if got := s.answer(t); got != "1 01" {
		t.Errorf("the answer is %q", got)
	}
	conn := wait(t, s.taken, "the connection")
	joined(t, client, conn)
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("the pipe is still open: %d, %v", n, err)
	}
	noneLeaked(t, before)
}

// The parent gets no descriptors, whatever the child sends.
func TestParentTakesNoDescriptors(t *testing.T) {
	f, l := script(t)
	client, server := connect(t, l)
	before := descriptors(t)
	if err := sendRights(f.child.control.conn, "news\n", []int{fdOf(t, server)}); err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
	if m := wait(t, f.parent.messages, "the message"); m.Word != "news" {
		t.Errorf("got %q", m)
	}
	ended(t, client)
	noneLeaked(t, before)
}

func TestReadyArgs(t *testing.T) {
	tests := []struct {
		unused, takes []int
		want          string
	}{
		{nil, nil, ""},
		{[]int{0, 2}, nil, "unused=0,2"},
		{nil, []int{1}, "takes=1"},
		{[]int{0}, []int{1, 2}, "unused=0 takes=1,2"},
	}
	for _, tt := range tests {
		got := readyArgs(tt.unused, tt.takes)
		if got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
		if unused, takes := parseReady(got); !slices.Equal(unused, tt.unused) || !slices.Equal(takes, tt.takes) {
			t.Errorf("%q is read as %v, %v", got, unused, takes)
		}
	}
	if unused, takes := parseReady("later=1  takes=x,1,-5,99 unused= what"); len(unused) != 0 || !slices.Equal(takes, []int{-1, 1, -1, 99}) {
		t.Errorf("rubbish is read as %v, %v", unused, takes)
	}
}

// Positions that are out of range are those of no listener.
func TestTakesOfRubbish(t *testing.T) {
	f := newFamily(t, "tcp", "tcp")
	f.parent.Hold("takes=x,-1,99,1,2")
	if f.parent.Takes(f.ours[0]) || !f.parent.Takes(f.ours[1]) {
		t.Errorf("takes is %v", f.parent.takes)
	}
}

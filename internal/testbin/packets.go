//go:build unix

package testbin

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// servePackets answers datagrams: "7 question" with "7 answer". With the term "deaf"
// as PreStart it never closes its sockets. It reads before it says that it is ready.
func servePackets(cfg play.Config) error {
	p := rawProcess(cfg)
	p.PreStart = nil
	var addrs []string
	for _, l := range cfg.Listens {
		c, err := plainNet.ListenPacket(l.Network, l.Addr)
		if err != nil {
			return err
		}
		addrs = append(addrs, c.LocalAddr().String())
		conn := grace.NewPacketConn(c)
		p.PacketConns = append(p.PacketConns, conn)
		go answerPackets(conn, cfg.PreStart == "deaf")
	}
	if cfg.Says.Until != "" {
		play.Answer("until " + cfg.Says.Until)
	}
	play.Emit(play.Event{Event: play.Serving, Addrs: addrs})
	if err := p.CloseParent(); err != nil {
		return err
	}
	return play.Done(p.Wait(nil))
}

func answerPackets(c *grace.PacketConn, deaf bool) {
	var answering sync.WaitGroup
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, grace.ErrAlreadyClosed) {
			break
		}
		if err != nil {
			play.Fail(err)
		}
		number, question, _ := strings.Cut(string(b[:n]), " ")
		answering.Add(1)
		go func() {
			defer answering.Done()
			if _, err := c.WriteTo([]byte(number+" "+play.Answer(question)), from); err != nil {
				play.Emit(play.Event{Event: play.Log, Text: "answer: " + err.Error()})
			}
		}()
	}
	answering.Wait()
	if !deaf {
		_ = c.Close()
	}
}

// serveSessions is a server of a protocol with connections over UDP, here called
// sessions. The first byte of a packet is the generation that has the session, or 0
// for a new one; the rest is the name of the session. It answers "GENERATION PID NAME
// COUNT", where COUNT is how many packets of the session have come, and "reset" if it
// does not have it. "end " before a name ends the session, and "ask " comes before a question.
func serveSessions(cfg play.Config) error {
	c, err := plainNet.ListenPacket(cfg.Listens[0].Network, cfg.Listens[0].Addr)
	if err != nil {
		return err
	}
	conn := grace.NewPacketConn(c)
	generation := byte(grace.Generation())
	mine := func(packet []byte, _ netip.AddrPort) bool {
		return len(packet) < 2 || packet[0] == 0 || packet[0] == generation
	}
	if err := conn.Forward(mine); err != nil {
		return err
	}
	p := rawProcess(cfg)
	p.PacketConns = []*grace.PacketConn{conn}
	go answerSessions(conn, generation)
	play.Emit(play.Event{Event: play.Serving, Addrs: []string{c.LocalAddr().String()}})
	if err := p.CloseParent(); err != nil {
		return err
	}
	err = p.Wait(nil)
	if cfg.Says.Until != "" { // it does other things
		play.Answer("until " + cfg.Says.Until)
	}
	return play.Done(err)
}

func answerSessions(c *grace.PacketConn, generation byte) {
	var mu sync.Mutex
	sessions := make(map[string]int)
	drains := false
	closeIfDone := func() { // mu is held
		if drains && len(sessions) == 0 {
			_ = c.Close()
		}
	}
	go func() {
		<-c.Context().Done()
		mu.Lock()
		defer mu.Unlock()
		drains = true
		closeIfDone()
	}()
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if errors.Is(err, grace.ErrAlreadyClosed) {
			return
		}
		if err != nil || n < 2 {
			play.Fail(fmt.Errorf("read of %d bytes: %w", n, err))
		}
		name := string(b[1:n])
		mu.Lock()
		_, known := sessions[name]
		answer := "reset"
		switch {
		case known && b[0] == generation || b[0] == 0 && !drains:
			sessions[name]++
			answer = fmt.Sprintf("%d %d %s %d", generation, os.Getpid(), name, sessions[name])
		case b[0] == generation && strings.HasPrefix(name, "end "):
			delete(sessions, strings.TrimPrefix(name, "end "))
			answer = "ended"
		case strings.HasPrefix(name, "ask "):
			answer = play.Answer(strings.TrimPrefix(name, "ask "))
		default: // nobody will end one that was begun just before the drain
			delete(sessions, name)
		}
		if _, err := c.WriteToUDPAddrPort([]byte(answer), from); err != nil {
			play.Fail(err)
		}
		closeIfDone()
		mu.Unlock()
	}
}

package gracehttp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a time that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1_700_000_000, 0)} }

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fields returns the keys as k writes them.
func fields(k *ticketKeys) []string { return strings.Fields(k.String()) }

func TestTicketKeysRotate(t *testing.T) {
	c := newClock()
	k := newTicketKeys("", c.time)
	first := fields(k)
	if len(first) != 1 {
		t.Fatalf("it begins with %d keys: %q", len(first), first)
	}
	c.advance(ticketKeyRotation - time.Second)
	if got := fields(k); !slices.Equal(got, first) {
		t.Errorf("before the day is over the keys are %q, want %q", got, first)
	}
	c.advance(time.Second)
	second := fields(k)
	if len(second) != 2 || second[1] != first[0] || second[0] == first[0] {
		t.Errorf("after a day the keys are %q, want a new one before %q", second, first)
	}
	if got := fields(k); !slices.Equal(got, second) {
		t.Errorf("without a reason the keys have become %q, want %q", got, second)
	}
	if made, _, _ := strings.Cut(second[0], ":"); made != fmt.Sprint(c.time().Unix()) {
		t.Errorf("the new key is of %s, want now: %d", made, c.time().Unix())
	}
}

func TestTicketKeysAreDropped(t *testing.T) {
	c := newClock()
	k := newTicketKeys("", c.time)
	var all []string // the newest first
	for range 20 {
		got := fields(k)
		all = append(got[:1:1], all...)
		want := all[:min(len(all), int(ticketKeyLifetime/ticketKeyRotation))]
		if !slices.Equal(got, want) {
			t.Fatalf("the keys are %q, want %q", got, want)
		}
		c.advance(ticketKeyRotation)
	}
	// A server that was not used for long begins anew.
	c.advance(ticketKeyLifetime)
	if got := fields(k); len(got) != 1 || slices.Contains(all, got[0]) {
		t.Errorf("after a week the keys are %q, want a new one", got)
	}
}

func TestTicketKeysRoundTrip(t *testing.T) {
	c := newClock()
	k := newTicketKeys("", c.time)
	for range 3 {
		_ = k.String()
		c.advance(ticketKeyRotation)
	}
	state := k.String()
	next := newTicketKeys(state, c.time)
	if got := next.String(); got != state {
		t.Errorf("the next process has %q, want %q", got, state)
	}
	// The age of the keys is known to it, too.
	c.advance(ticketKeyRotation)
	if got, old := fields(next), strings.Fields(state); len(got) != len(old)+1 || !slices.Equal(got[1:], old) {
		t.Errorf("a day later it has %q, want one more than %q", got, old)
	}
	if a, b := newTicketKeys("", c.time).String(), newTicketKeys("", c.time).String(); a == b {
		t.Errorf("two servers have one key: %q", a)
	}
}

func TestTicketKeysOfRubbish(t *testing.T) {
	now := newClock().time
	key := strings.Repeat("0f", 32)
	fine := fmt.Sprintf("%d:%s", now().Unix(), key)
	for _, rubbish := range []string{
		"", " ", "\x00", ":", "x", key, "1:", ":" + key, "x:" + key, "1:" + key[2:], "1:" + key + "00", "1:" + key[1:],
		"1:" + strings.Repeat("zz", 32), "1.5:" + key, "0x1:" + key, "99999999999999999999:" + key, "1:2:" + key, "1:" + key + ":3",
	} {
		if got := fields(newTicketKeys(rubbish, now)); len(got) != 1 || strings.HasSuffix(got[0], key) {
			t.Errorf("%q: the keys are %q, want a new one", rubbish, got)
		}
		for _, state := range []string{fine + " " + rubbish, rubbish + " " + fine, rubbish + "\n" + fine} {
			if got := newTicketKeys(state, now).String(); got != fine {
				t.Errorf("%q: the keys are %q, want the one that is right", state, got)
			}
		}
	}
}

// A server asks for its keys in every handshake.
func TestTicketKeysTogether(t *testing.T) {
	c := newClock()
	k := newTicketKeys("", c.time)
	var all sync.WaitGroup
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			for range 50 {
				c.advance(ticketKeyRotation / 10)
				ticket, err := k.current().EncryptTicket(tls.ConnectionState{}, &tls.SessionState{})
				if err != nil || len(ticket) == 0 {
					t.Errorf("no ticket: %v", err)
				}
				_, _ = k.current().DecryptTicket(ticket, tls.ConnectionState{})
				_ = k.String()
			}
		}()
	}
	all.Wait()
	got := fields(k)
	if n := int(ticketKeyLifetime / ticketKeyRotation); len(got) > n {
		t.Errorf("%d keys, want %d at most", len(got), n)
	}
	slices.Sort(got)
	if len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Errorf("a key twice: %q", got)
	}
}

// certificate is for tests, valid for all of the present.
var certificate = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"x"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})

func serverConfig(t testing.TB) *tls.Config {
	t.Helper()
	cert, err := certificate()
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

// shared returns a configuration as shareTicketKeys makes it in a process that has
// got k from its parent.
func shared(t *testing.T, k *ticketKeys) *tls.Config {
	t.Helper()
	config := serverConfig(t)
	config.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		return k.current().EncryptTicket(cs, ss)
	}
	config.UnwrapSession = func(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		return k.current().DecryptTicket(identity, cs)
	}
	return config
}

// tlsClient is a client that resumes its session where it can.
func tlsClient(version uint16) *tls.Config {
	return &tls.Config{
		ServerName:         "x",
		InsecureSkipVerify: true, // the certificate is its own authority
		MinVersion:         version,
		MaxVersion:         version,
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}
}

// handshake connects client with a server of config, and reports whether both say
// that they have resumed a session.
func handshake(t *testing.T, config, client *tls.Config) (resumed bool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	resumedThere := make(chan bool, 1)
	go func() {
		defer close(resumedThere)
		c, err := l.Accept()
		if err != nil {
			return
		}
		server := tls.Server(c, config)
		defer server.Close()
		_ = server.SetDeadline(time.Now().Add(testPatience))
		if _, err := io.WriteString(server, "hello"); err != nil {
			t.Errorf("server: %v", err)
			return
		}
		resumedThere <- server.ConnectionState().DidResume
		_, _ = io.Copy(io.Discard, server)
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(c, client)
	_ = conn.SetDeadline(time.Now().Add(testPatience))
	// The ticket of TLS 1.3 comes after the handshake.
	if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
		t.Errorf("client: %v", err)
	}
	resumed = conn.ConnectionState().DidResume
	_ = conn.Close()
	if there := <-resumedThere; there != resumed {
		t.Errorf("the client has resumed: %t, the server: %t", resumed, there)
	}
	return resumed
}

// eachVersion runs f for each version that has tickets.
func eachVersion(t *testing.T, f func(t *testing.T, version uint16)) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) { f(t, version) })
	}
}

func TestShareTicketKeys(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		client := tlsClient(version)
		config := shareTicketKeys(serverConfig(t), newListener(t))
		if handshake(t, config, client) {
			t.Error("the first connection has resumed")
		}
		for range 2 {
			if !handshake(t, config, client) {
				t.Error("a later connection has not resumed")
			}
		}
		// net/http clones the configuration.
		if !handshake(t, config.Clone(), client) {
			t.Error("a copy of the configuration does not resume")
		}
		// Each server has its own keys.
		other := shareTicketKeys(serverConfig(t), newListener(t))
		if handshake(t, other, client) {
			t.Error("another server takes the tickets")
		}
	})
}

// A client that has a ticket of the parent resumes in the child.
func TestTicketsOfTheParent(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		c := newClock()
		parent := newTicketKeys("", c.time)
		client := tlsClient(version)
		if handshake(t, shared(t, parent), client) {
			t.Error("the first connection has resumed")
		}
		stranger := client.Clone()
		stranger.ClientSessionCache = copyOfCache(t, client)
		if handshake(t, shared(t, newTicketKeys("", c.time)), stranger) {
			t.Error("a process without the keys has resumed")
		}
		last := parent
		for i := range 3 {
			last = newTicketKeys(last.String(), c.time)
			if !handshake(t, shared(t, last), client) {
				t.Errorf("child %d has not resumed", i)
			}
		}
		// The parent may serve again.
		if !handshake(t, shared(t, parent), client) {
			t.Error("the parent has not resumed")
		}
	})
}

// copyOfCache returns a cache with the session of client.
func copyOfCache(t *testing.T, client *tls.Config) tls.ClientSessionCache {
	t.Helper()
	session, ok := client.ClientSessionCache.Get(client.ServerName)
	if !ok {
		t.Fatal("the client has no session")
	}
	// Sessions of TLS 1.3 are used once.
	client.ClientSessionCache.Put(client.ServerName, session)
	cache := tls.NewLRUClientSessionCache(1)
	cache.Put(client.ServerName, session)
	return cache
}

// The ticket of a key that is not the first any more is good, and not of one that
// was dropped.
func TestTicketsOfOldKeys(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		for _, tt := range []struct {
			age     time.Duration
			resumes bool
		}{
			{0, true},
			{ticketKeyRotation, true},
			{ticketKeyLifetime - time.Second, true},
			{ticketKeyLifetime, false},
		} {
			c := newClock()
			k := newTicketKeys("", c.time)
			client := tlsClient(version)
			_ = handshake(t, shared(t, k), client)
			c.advance(tt.age)
			next := newTicketKeys(k.String(), c.time)
			for name, k := range map[string]*ticketKeys{"same process": k, "next process": next} {
				client := client.Clone()
				client.ClientSessionCache = copyOfCache(t, client)
				if got := handshake(t, shared(t, k), client); got != tt.resumes {
					t.Errorf("%s, after %v: resumes is %t, want %t", name, tt.age, got, tt.resumes)
				}
			}
		}
	})
}

// New tickets are made with the new key: a process that has the old one alone does
// not understand them.
func TestTicketsAreOfTheNewKey(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		c := newClock()
		k := newTicketKeys("", c.time)
		old := k.String()
		c.advance(ticketKeyRotation)
		client := tlsClient(version)
		_ = handshake(t, shared(t, k), client)
		other := newTicketKeys(old, newClock().time)
		if handshake(t, shared(t, other), client) {
			t.Error("the ticket was made with the old key")
		}
	})
}

// What the program does with tickets by itself is left alone.
func TestShareTicketKeysLeavesAlone(t *testing.T) {
	wrap := func(tls.ConnectionState, *tls.SessionState) ([]byte, error) { return nil, nil }
	unwrap := func([]byte, tls.ConnectionState) (*tls.SessionState, error) { return nil, nil }
	for name, config := range map[string]*tls.Config{
		"WrapSession":            {WrapSession: wrap},
		"UnwrapSession":          {UnwrapSession: unwrap},
		"both":                   {WrapSession: wrap, UnwrapSession: unwrap},
		"SessionTicketsDisabled": {SessionTicketsDisabled: true},
	} {
		if got := shareTicketKeys(config, newListener(t)); got != config {
			t.Errorf("%s: it is another configuration", name)
		}
	}
	eachVersion(t, func(t *testing.T, version uint16) {
		config := serverConfig(t)
		config.SessionTicketsDisabled = true
		config = shareTicketKeys(config, newListener(t))
		client := tlsClient(version)
		for range 2 {
			if handshake(t, config, client) {
				t.Error("resumed without tickets")
			}
		}
	})
}

// Others may share the configuration of the program.
func TestShareTicketKeysCopies(t *testing.T) {
	config := serverConfig(t)
	config.NextProtos = []string{"http/1.1"}
	config.MinVersion = tls.VersionTLS13
	got := shareTicketKeys(config, newListener(t))
	if got == config || config.WrapSession != nil || config.UnwrapSession != nil {
		t.Error("the configuration of the program was changed")
	}
	if got.WrapSession == nil || got.UnwrapSession == nil {
		t.Error("the copy does not use the keys")
	}
	if len(got.Certificates) != 1 || !slices.Equal(got.NextProtos, config.NextProtos) || got.MinVersion != config.MinVersion {
		t.Error("the copy lacks something")
	}
}

// A ticket that was made by somebody else is no error, and no session either.
func TestTicketsOfOthers(t *testing.T) {
	k := newTicketKeys("", time.Now)
	for _, ticket := range []string{"", "rubbish", strings.Repeat("x", 200)} {
		if ss, err := shared(t, k).UnwrapSession([]byte(ticket), tls.ConnectionState{}); ss != nil || err != nil {
			t.Errorf("%q: got %v, %v, want neither", ticket, ss, err)
		}
	}
	_ = k.String()
	if len(k.keys) != 1 || hex.EncodeToString(k.keys[0].key[:]) == strings.Repeat("00", 32) {
		t.Error("the key is not random")
	}
}

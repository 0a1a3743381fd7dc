package gracehttp

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/facebookgo/grace/internal/handoff"
)

// The keys of crypto/tls's own are as old at most.
const (
	ticketKeyRotation = 24 * time.Hour
	ticketKeyLifetime = 7 * 24 * time.Hour
)

// ticketKeys are the keys of the session tickets of one server. The first one is
// for new tickets.
type ticketKeys struct {
	now func() time.Time

	mu     sync.Mutex
	keys   []ticketKey
	config *tls.Config // has keys, and nothing else
}

type ticketKey struct {
	made time.Time
	key  [32]byte
}

// shareTicketKeys returns a copy of config whose tickets are made with keys of our
// own: those that the parent had for l, if there is one. The next child gets them.
func shareTicketKeys(config *tls.Config, l net.Listener) *tls.Config {
	if config.WrapSession != nil || config.UnwrapSession != nil || config.SessionTicketsDisabled {
		return config
	}
	keys := newTicketKeys(handoff.This().State(l), time.Now)
	handoff.This().SetState(l, keys.String)
	config = config.Clone()
	config.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		return keys.current().EncryptTicket(cs, ss)
	}
	config.UnwrapSession = func(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		return keys.current().DecryptTicket(identity, cs)
	}
	return config
}

// newTicketKeys begins with the keys that String has written, or with a new one.
func newTicketKeys(state string, now func() time.Time) *ticketKeys {
	k := &ticketKeys{now: now, config: &tls.Config{}}
	for field := range strings.FieldsSeq(state) {
		made, text, _ := strings.Cut(field, ":")
		seconds, err := strconv.ParseInt(made, 10, 64)
		key, keyErr := hex.DecodeString(text)
		if err == nil && keyErr == nil && len(key) == 32 {
			k.keys = append(k.keys, ticketKey{time.Unix(seconds, 0), [32]byte(key)})
		}
	}
	if len(k.keys) != 0 {
		k.use()
	}
	return k
}

// String writes the keys, for another process only.
func (k *ticketKeys) String() string {
	k.current()
	k.mu.Lock()
	defer k.mu.Unlock()
	fields := make([]string, len(k.keys))
	for i, key := range k.keys {
		fields[i] = fmt.Sprintf("%d:%x", key.made.Unix(), key.key)
	}
	return strings.Join(fields, " ")
}

// current returns a configuration with the keys of now.
func (k *ticketKeys) current() *tls.Config {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if len(k.keys) != 0 && now.Sub(k.keys[0].made) < ticketKeyRotation {
		return k.config
	}
	next := ticketKey{made: now}
	_, _ = rand.Read(next.key[:]) // never fails
	keys := []ticketKey{next}
	for _, key := range k.keys {
		if now.Sub(key.made) < ticketKeyLifetime {
			keys = append(keys, key)
		}
	}
	k.keys = keys
	k.use()
	return k.config
}

// use gives the keys to crypto/tls. mu is held.
func (k *ticketKeys) use() {
	keys := make([][32]byte, len(k.keys))
	for i, key := range k.keys {
		keys[i] = key.key
	}
	k.config.SetSessionTicketKeys(keys)
}

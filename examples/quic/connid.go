package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net/netip"
	"sync/atomic"

	"github.com/quic-go/quic-go"
)

// connIDs makes connection IDs that tell which process has the connection:
//
//	1 byte   the generation
//	7 bytes  random
//	4 bytes  a check over these, so that an ID that a client has chosen is no ID of ours
type connIDs struct {
	generation byte
	key        []byte

	foreign atomic.Int64 // packets that were not for this process
}

const (
	connIDLen   = 12
	connIDCheck = 8 // where the check begins
)

// ConnectionIDLen implements quic.ConnectionIDGenerator.
func (c *connIDs) ConnectionIDLen() int { return connIDLen }

// GenerateConnectionID implements quic.ConnectionIDGenerator.
func (c *connIDs) GenerateConnectionID() (quic.ConnectionID, error) {
	id := make([]byte, connIDCheck, connIDLen)
	_, _ = rand.Read(id) // never fails
	id[0] = c.generation
	return quic.ConnectionIDFromBytes(append(id, c.check(id)...)), nil
}

func (c *connIDs) check(id []byte) []byte {
	mac := hmac.New(sha256.New, c.key)
	mac.Write(id)
	return mac.Sum(nil)[:connIDLen-connIDCheck]
}

// mine reports whether a packet is for this process, for PacketConn.Forward. RFC 8999
// says where each version of QUIC has the connection ID.
func (c *connIDs) mine(packet []byte, _ netip.AddrPort) bool {
	mine := c.has(packet)
	if !mine {
		c.foreign.Add(1)
	}
	return mine
}

func (c *connIDs) has(packet []byte) bool {
	if len(packet) <= connIDLen {
		return true // not of QUIC
	}
	if long := packet[0]&0x80 != 0; !long { // the ID is one that a server has chosen
		return packet[1] == c.generation
	}
	// 4 bytes with the version, the length of the ID, the ID.
	if len(packet) < 6+connIDLen || packet[5] != connIDLen {
		return true
	}
	id := packet[6 : 6+connIDLen]
	return id[0] == c.generation || !hmac.Equal(id[connIDCheck:], c.check(id[:connIDCheck]))
}

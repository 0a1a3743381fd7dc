// Package control is the control socket of a service: where it is, who may use
// it, and what is said on it.
//
// # Protocol
//
// A client connects, sends one line, a request in JSON, and gets one line back:
//
//	{"version":1,"command":"upgrade","wait":"standby"}
//	{"version":1,"pid":812,"child":904,"seconds":0.31}
//
//	{"version":1,"command":"stop"}
//	{"version":1,"pid":904}
//
//	{"version":1,"command":"status"}
//	{"version":1,"pid":904,"status":{...}}
//
// An answer with a code is a refusal, and "error" says why. After the answer the
// connection is closed, that of stop only when the process is gone.
//
// A request that is too long, too late, incomplete, not understood to the letter
// or followed by more gets such an answer, too, and changes nothing.
package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// version is the version of the protocol.
const version = 1

// Commands.
const (
	Upgrade = "upgrade"
	Status  = "status"
	Stop    = "stop"
)

// What upgrade may wait for. The first is the default.
const (
	WaitReady   = "ready"
	WaitStandby = "standby"
)

// Codes of refusals.
const (
	BadRequest = "bad request" // nobody has understood it
	Denied     = "denied"      // the client is another user
	Busy       = "busy"        // an upgrade is under way already, or too many ask
	NotServing = "not serving" // there is nobody to ask: the process starts, ends, or was replaced
	Failed     = "failed"      // the upgrade has failed, the process serves on
)

// Request is what a client asks for.
type Request struct {
	Version int    `json:"version"`
	Command string `json:"command"`
	Wait    string `json:"wait,omitempty"` // only for upgrade
}

// Answer is what it is told.
type Answer struct {
	Version int             `json:"version"`
	PID     int             `json:"pid"`            // of the process that answers
	Code    string          `json:"code,omitempty"` // empty if what was asked is done
	Error   string          `json:"error,omitempty"`
	Child   int             `json:"child,omitempty"`   // of upgrade: the new process
	Seconds float64         `json:"seconds,omitempty"` // of upgrade: how long it took
	Stderr  string          `json:"stderr,omitempty"`  // of upgrade: the last lines of the new process
	Journal string          `json:"journal,omitempty"` // of upgrade: the command that shows them
	Status  json.RawMessage `json:"status,omitempty"`
}

// maxRequest bounds the line of a request.
const maxRequest = 4 << 10

// parseRequest reads a line without its end. What it does not know is an error:
// a client must not believe that it was heeded.
func parseRequest(line []byte) (Request, error) {
	var r Request
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Request{}, fmt.Errorf("not a request: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Request{}, errors.New("more than a request in one line")
	}
	if r.Version != version {
		return Request{}, fmt.Errorf("version %d of the protocol is not known, only %d", r.Version, version)
	}
	switch r.Command {
	case Status, Stop:
		if r.Wait != "" {
			return Request{}, fmt.Errorf("%s does not wait for %.40q", r.Command, r.Wait)
		}
	case Upgrade:
		switch r.Wait {
		case "":
			r.Wait = WaitReady
		case WaitReady, WaitStandby:
		default:
			return Request{}, fmt.Errorf("upgrade does not wait for %.40q, only for %q or %q", r.Wait, WaitReady, WaitStandby)
		}
	default:
		return Request{}, fmt.Errorf("unknown command %.40q", r.Command)
	}
	return r, nil
}

package control

import (
	"strings"
	"testing"
)

func TestParseRequest(t *testing.T) {
	tests := []struct {
		line string
		want Request
	}{
		{`{"version":1,"command":"status"}`, Request{1, Status, ""}},
		{` {"command":"stop", "version":1} `, Request{1, Stop, ""}},
		{`{"version":1,"command":"upgrade"}`, Request{1, Upgrade, WaitReady}},
		{`{"version":1,"command":"upgrade","wait":"ready"}`, Request{1, Upgrade, WaitReady}},
		{`{"version":1,"command":"upgrade","wait":"standby"}`, Request{1, Upgrade, WaitStandby}},
	}
	for _, tt := range tests {
		if got, err := parseRequest([]byte(tt.line)); err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v, want %+v", tt.line, got, err, tt.want)
		}
	}
}

// rubbish is what is no request.
var rubbish = []string{
	``,
	` `,
	`null`,
	`1`,
	`"stop"`,
	`[]`,
	`{}`,
	`stop`,
	`{`,
	`{"version":1,"command":"stop"`,
	`{"version":1,"command":"stop"}}`,
	`{"version":1,"command":"stop"} {"version":1,"command":"stop"}`,
	`{"version":1,"command":"stop"} stop`,
	`{"version":1,"command":"stop","now":true}`,
	`{"version":1,"command":"stop","wait":"standby"}`,
	`{"version":1,"command":"status","wait":"ready"}`,
	`{"version":1,"command":"upgrade","wait":"forever"}`,
	`{"version":1,"command":"upgrade","wait":1}`,
	`{"version":1,"command":"UPGRADE"}`,
	`{"version":1,"command":"restart"}`,
	`{"version":1,"command":""}`,
	`{"version":1,"command":null}`,
	`{"version":1}`,
	`{"version":0,"command":"stop"}`,
	`{"version":2,"command":"stop"}`,
	`{"version":"1","command":"stop"}`,
	`{"version":1.5,"command":"stop"}`,
	`{"command":"stop"}`,
	`GET /stop HTTP/1.1`,
	"\x00\x01\xff",
}

func TestParseRequestRejects(t *testing.T) {
	for _, line := range rubbish {
		if r, err := parseRequest([]byte(line)); err == nil || r != (Request{}) {
			t.Errorf("%q: got %+v, %v, want an error", line, r, err)
		}
	}
}

// Whatever is read as a request is one of the few that there are, and an error is
// short enough for a log.
func FuzzParseRequest(f *testing.F) {
	for _, line := range rubbish {
		f.Add([]byte(line))
	}
	f.Add([]byte(`{"version":1,"command":"upgrade","wait":"standby"}`))
	f.Add([]byte(`{"version":1,"command":"stop"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := parseRequest(line)
		if err != nil {
			if r != (Request{}) {
				t.Fatalf("%+v and the error %v", r, err)
			}
			return
		}
		switch r {
		case Request{1, Status, ""}, Request{1, Stop, ""}, Request{1, Upgrade, WaitReady}, Request{1, Upgrade, WaitStandby}:
		default:
			t.Fatalf("%q is read as %+v", line, r)
		}
		if !strings.Contains(strings.ToLower(string(line)), "command") {
			t.Fatalf("%q has no command and is read as %+v", line, r)
		}
	})
}

//go:build unix

package gracehttp_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// The option Logger gets a record for each step: one upgrade that fails, one
// whose child dies on standby, and one that succeeds.
func TestRecords(t *testing.T) {
	cfg := httpConfig()
	cfg.Records = true
	cfg.Standby = time.Hour
	s := testbin.Start(t, cfg)
	first, _ := s.Newest()

	s.Deploy(play.Config{Role: "exit"})
	s.Signal(first, syscall.SIGUSR2)
	s.WaitLog(first, "restart failed")
	s.Deploy(cfg)

	died := s.RestartPID(first)
	s.WaitLog(first, "standing by")
	s.Signal(died, syscall.SIGKILL)
	s.WaitLog(first, "serves again")

	last := s.RestartPID(first)
	s.WaitLog(first, fmt.Sprintf("standing by child=%d", last))
	s.Signal(first, syscall.SIGTERM)
	s.WaitReturned(first)
	s.Wait("the record of the child that it is ready", func(e play.Event) bool {
		return e.PID == last && e.Event == play.Record && strings.Contains(e.Text, `"step":"ready"`)
	})
	s.Stop()

	records := recordsOf(t, s.Events(), first)
	var steps []string
	for _, r := range records {
		steps = append(steps, r["step"].(string))
		var keys []string
		for key := range r {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		if want := recordKeys[r["step"].(string)]; fmt.Sprint(keys) != fmt.Sprint(want) {
			t.Errorf("record %v has the keys %v, want %v", r, keys, want)
		}
		if r["pid"] != float64(first) {
			t.Errorf("record %v has the pid %v, want %d", r, r["pid"], first)
		}
		// In nanoseconds. All of it took less than the patience of tests.
		if after, ok := r["after"].(float64); ok && (after <= 0 || after > float64(2*testbin.Patience)) {
			t.Errorf("record %v took %v", r, time.Duration(after))
		}
	}
	want := []string{
		"start", "hello", "fail",
		"start", "hello", "ready", "standby", "take-back",
		"start", "hello", "ready", "standby", "drain", "exit",
	}
	if fmt.Sprint(steps) != fmt.Sprint(want) {
		t.Errorf("steps %v, want %v", steps, want)
	}
	for i, want := range map[int]map[string]any{
		2:  {"level": "ERROR", "error": "new process exited before it was ready: exit status 7"},
		5:  {"level": "INFO", "child": float64(died)},
		6:  {"for": float64(time.Hour)},
		7:  {"level": "ERROR", "child": float64(died), "error": "signal: killed"},
		12: {"successor": float64(last)},
	} {
		for key, value := range want {
			if i < len(records) && records[i][key] != value {
				t.Errorf("record %v has %s=%v, want %v", records[i], key, records[i][key], value)
			}
		}
	}

	steps = nil
	for _, r := range recordsOf(t, s.Events(), last) {
		steps = append(steps, r["step"].(string))
		if r["step"] == "ready" && r["parent"] != float64(first) {
			t.Errorf("record %v has the parent %v, want %d", r, r["parent"], first)
		}
	}
	if want := []string{"ready", "signal", "drain", "exit"}; fmt.Sprint(steps) != fmt.Sprint(want) {
		t.Errorf("steps of the child %v, want %v", steps, want)
	}
}

// recordKeys are the keys of a record of each step.
var recordKeys = map[string][]string{
	"start":     {"child", "level", "msg", "pid", "step", "time"},
	"hello":     {"after", "child", "level", "msg", "pid", "step", "time"},
	"ready":     {"after", "child", "level", "msg", "pid", "step", "time"},
	"standby":   {"child", "for", "level", "msg", "pid", "step", "time"},
	"take-back": {"after", "child", "error", "level", "msg", "pid", "step", "time"},
	"fail":      {"after", "child", "error", "level", "msg", "pid", "step", "time"},
	"drain":     {"level", "msg", "pid", "step", "successor", "time"},
	"exit":      {"after", "level", "msg", "pid", "step", "time"},
}

func recordsOf(t *testing.T, events []play.Event, pid int) (records []map[string]any) {
	t.Helper()
	for _, e := range events {
		if e.Event != play.Record || e.PID != pid {
			continue
		}
		var r map[string]any
		if err := json.Unmarshal([]byte(e.Text), &r); err != nil {
			t.Fatalf("%q: %v", e.Text, err)
		}
		records = append(records, r)
	}
	return records
}

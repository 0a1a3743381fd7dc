//go:build unix

package testbin

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/facebookgo/grace/internal/testbin/play"
)

// Talked is what a server writes to standard error that talks.
func Talked(who string, from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		b.WriteString(play.Line(who, i))
	}
	return b.String()
}

// serveSays writes to standard error before it serves, or does not come to that.
func serveSays(cfg play.Config) error {
	t := cfg.Says
	target, err := os.Readlink("/proc/self/fd/2")
	if err != nil {
		return err
	}
	play.Emit(play.Event{Event: play.Log, Text: "standard error is " + target})
	if err := write(0, t.Lines); err != nil {
		return err
	}
	if t.Helper != "" {
		if err := startHelper(t.Helper); err != nil {
			return err
		}
	}
	if t.Redirect != "" {
		f, err := os.OpenFile(t.Redirect, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		if err := unix.Dup2(int(f.Fd()), 2); err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, "redirected")
	}
	if t.Until != "" {
		play.Emit(play.Event{Event: play.Log, Text: "waits"})
		for {
			if _, err := os.Stat(t.Until); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	if err := write(t.Lines, t.Lines+t.More); err != nil {
		return err
	}
	switch t.Then {
	case "fatal":
		log.SetFlags(0)
		log.Fatal("the last word")
	case "panic":
		panic("on purpose")
	}
	return ServeHTTP(cfg, handler())
}

func write(from, to int) error {
	for i := from; i < to; i++ {
		if _, err := fmt.Fprint(os.Stderr, play.Line("talk", i)); err != nil {
			return err
		}
	}
	return nil
}

// startHelper starts a process that has our standard error and lives on.
func startHelper(file string) error {
	cmd := exec.Command("sh", "-c", fmt.Sprintf(
		`until [ -e "$0" ]; do sleep 0.01; done; i=0; while [ $i -lt %d ]; do echo "helper $i %s" >&2; i=$((i+1)); done`,
		play.HelperLines, strings.Repeat(".", 90)), file)
	cmd.Stderr = os.Stderr
	return cmd.Start()
}

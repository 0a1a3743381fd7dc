//go:build unix

package testbin

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracectl"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// Control is a client of the control socket, whose path begins in the directory of
// the service.
func (s *Service) Control(path string) *gracectl.Client {
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.Dir(), path)
	}
	return &gracectl.Client{Path: path}
}

// Status asks for the status, which must be had.
func Status(t *testing.T, c *gracectl.Client) gracectl.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	s, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serveAsking is a server that calls Upgrade when it gets SIGHUP, and says what
// comes of it.
func serveAsking(cfg play.Config) error {
	play.Emit(play.Event{Event: play.Log, Text: "Upgrade: " + text(grace.Upgrade(context.Background()))})
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	var asking sync.WaitGroup
	asking.Add(1)
	go func() {
		defer asking.Done()
		for range hangups {
			asking.Add(1)
			go func() {
				defer asking.Done()
				play.Emit(play.Event{Event: play.Log, Text: "Upgrade begins"})
				err := grace.Upgrade(context.Background())
				var failure *grace.UpgradeError
				if errors.As(err, &failure) && failure.Stderr != "" {
					play.Emit(play.Event{Event: play.Log, Text: "Stderr: " + failure.Stderr})
				}
				play.Emit(play.Event{Event: play.Log, Text: "Upgrade: " + text(err)})
			}()
		}
	}()
	err := ServeHTTP(cfg, handler())
	signal.Stop(hangups)
	close(hangups)
	asking.Wait() // the process must not end before it has said what it was told
	play.Emit(play.Event{Event: play.Log, Text: "Upgrade: " + text(grace.Upgrade(context.Background()))})
	return err
}

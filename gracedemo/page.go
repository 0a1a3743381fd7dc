package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/facebookgo/grace"
	"github.com/facebookgo/grace/gracehttp"
)

//go:embed page
var files embed.FS

var index = template.Must(template.ParseFS(files, "page/index.html"))

// page shows who serves, live, and restarts the server when its button is pressed.
type page struct {
	started  time.Time
	answered atomic.Int64 // requests for the status
}

// status is what this process says of itself.
type status struct {
	PID        int    `json:"pid"`
	Generation int    `json:"generation"`
	Started    string `json:"started"`
	Answered   int64  `json:"answered"`
	Drains     bool   `json:"drains"`

	Said string `json:"-"` // what became of a restart, for the page
}

// status is the answer to a request of ctx.
func (p *page) status(ctx context.Context) status {
	return status{
		PID:        os.Getpid(),
		Generation: grace.Generation(),
		Started:    p.started.Format(time.TimeOnly),
		Answered:   p.answered.Load(),
		Drains:     closed(gracehttp.Draining(ctx)),
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (p *page) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", p.serveIndex)
	mux.HandleFunc("GET /page.css", serveFile)
	mux.HandleFunc("GET /page.js", serveFile)
	mux.HandleFunc("GET /status", p.serveStatus)
	mux.HandleFunc("GET /events", p.serveEvents)
	mux.HandleFunc("POST /restart", p.serveRestart)
}

func serveFile(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache") // the next generation may have another one
	http.ServeFileFS(w, r, files, "page"+r.URL.Path)
}

func (p *page) serveIndex(w http.ResponseWriter, r *http.Request) {
	s := p.status(r.Context())
	if r.URL.Query().Has("restarted") {
		s.Said = said(nil)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'")
	_ = index.Execute(w, s) // an error is the client's, which has gone
}

func (p *page) serveStatus(w http.ResponseWriter, r *http.Request) {
	p.answered.Add(1)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(p.status(r.Context()))
}

// serveEvents tells what this process does, until it drains. The client is served by the
// next process then.
func (p *page) serveEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		s := p.status(r.Context())
		b, err := json.Marshal(s)
		if err == nil {
			_, err = fmt.Fprintf(w, "data: %s\n\n", b)
		}
		if err == nil {
			err = http.NewResponseController(w).Flush()
		}
		if err != nil || s.Drains {
			return
		}
		select {
		case <-tick.C:
		case <-gracehttp.Draining(r.Context()):
		case <-r.Context().Done():
			return
		}
	}
}

// serveRestart restarts the server, for the browser of who runs it. Another site that
// is open in that browser can't press the button, nor can another machine.
func (p *page) serveRestart(w http.ResponseWriter, r *http.Request) {
	if site := r.Header.Get("Sec-Fetch-Site"); !fromHere(r) || site != "" && site != "same-origin" && site != "none" {
		http.Error(w, "the server is restarted from its own machine only, and from its own page", http.StatusForbidden)
		return
	}
	// The restart goes on if the client does not wait for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), time.Minute)
	defer cancel()
	err := grace.Upgrade(ctx)
	if err == nil && strings.Contains(r.Header.Get("Accept"), "text/html") {
		http.Redirect(w, r, "/?restarted", http.StatusSeeOther)
		return
	}
	if err != nil {
		w.WriteHeader(http.StatusConflict)
	}
	fmt.Fprint(w, said(err))
}

func said(err error) string {
	switch {
	case err == nil:
		return "restarted: the old process stands by for a few seconds, and then drains"
	case errors.Is(err, grace.ErrUpgrading):
		return "a restart is under way already: wait until the old process has gone"
	}
	return err.Error()
}

// fromHere reports whether a request comes from this machine.
func fromHere(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && net.ParseIP(host).IsLoopback()
}

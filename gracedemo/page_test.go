//go:build unix

package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The page in a browser is tested in the module clients. Here is who may do what.
func TestPage(t *testing.T) {
	server := httptest.NewServer(handler("Zero", &page{started: time.Now()}))
	defer server.Close()
	ask := func(method, path, header, value string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequest(method, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(header, value)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(b)
	}
	pid := strconv.Itoa(os.Getpid())
	for path, want := range map[string]string{
		"/":         `process <strong id="pid">` + pid + `</strong>, generation <strong id="generation">1</strong>`,
		"/page.js":  "/status",
		"/page.css": "light-dark",
		"/status":   `"pid":` + pid,
	} {
		resp, body := ask("GET", path, "Accept", "*/*")
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("GET %s: status %d, %q, want %q in it", path, resp.StatusCode, body, want)
		}
	}
	if resp, _ := ask("GET", "/missing", "Accept", "*/*"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("GET /missing: status %d", resp.StatusCode)
	}
	_, body := ask("GET", "/status", "Accept", "*/*")
	var s status
	if err := json.Unmarshal([]byte(body), &s); err != nil || s.Answered != 2 || s.PID != os.Getpid() || s.Generation != 1 {
		t.Errorf("status %q, %v, want pid %s and 2 answers", body, err, pid)
	}
	for _, site := range []string{"cross-site", "same-site"} {
		if resp, body := ask("POST", "/restart", "Sec-Fetch-Site", site); resp.StatusCode != http.StatusForbidden {
			t.Errorf("POST /restart from %s: status %d, %q", site, resp.StatusCode, body)
		}
	}
	if resp, _ := ask("GET", "/restart", "Accept", "*/*"); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET /restart: status %d", resp.StatusCode)
	}
	// This process does not call Serve, so there is nothing to restart.
	if resp, body := ask("POST", "/restart", "Sec-Fetch-Site", "same-origin"); resp.StatusCode != http.StatusConflict || !strings.Contains(body, "does not serve") {
		t.Errorf("POST /restart: status %d, %q", resp.StatusCode, body)
	}
}

func TestOnlyThisMachineRestarts(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:5": true, "[::1]:5": true, "[::ffff:127.0.0.1]:5": true,
		"192.0.2.1:5": false, "[2001:db8::1]:5": false, "": false, "@": false,
	} {
		if got := fromHere(&http.Request{RemoteAddr: addr}); got != want {
			t.Errorf("%q is from here: %t, want %t", addr, got, want)
		}
	}
}

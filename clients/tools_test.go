//go:build unix

package clients_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/facebookgo/grace/internal/testbin"
	"github.com/facebookgo/grace/internal/testbin/play"
)

// look returns the path of a program.
func look(t *testing.T, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v; install the Debian package %s", err, debian)
	}
	return path
}

// run runs a program to its end.
func run(ctx context.Context, stdin, name string, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, tail(out.String()), tail(errs.String()))
	}
	return out.String(), errs.String(), err
}

// tail is the end of what a program has said.
func tail(s string) string { return s[max(0, len(s)-2000):] }

// tool is a program that makes requests.
type tool struct {
	name string
	// run makes some requests. It returns an error unless all of them were
	// answered, and the number of connections if it knows that.
	run func(context.Context) (conns int, err error)
	// conns is how many connections are allowed in all if the service hands idle
	// ones over, times the number of runs; 0 for any number.
	conns int
}

// curl makes 100 requests in one run. It would send a request again if the
// connection turned out to be closed, and say so.
func curl(t *testing.T, name, addr string, args ...string) tool {
	path := look(t, "curl", "curl")
	const n = 100
	return tool{name: name, run: func(ctx context.Context) (int, error) {
		return runCurl(ctx, path, n, append(args, addr+"/tool/"+name+"?[1-"+strconv.Itoa(n)+"]"))
	}}
}

// curlOnce is curl with a run of its own for each request: curl 7.88, which Debian
// 12 has, fails with any server at its second request on a connection with prior
// knowledge (curl issue 10634).
func curlOnce(t *testing.T, name, addr string, args ...string) tool {
	path := look(t, "curl", "curl")
	return tool{name: name, run: func(ctx context.Context) (int, error) {
		return runCurl(ctx, path, 1, append(args, addr+"/tool/"+name))
	}}
}

// runCurl returns an error unless n requests were answered, each at the first
// attempt.
func runCurl(ctx context.Context, path string, n int, args []string) (conns int, err error) {
	out, errs, err := run(ctx, "", path, append([]string{"--no-progress-meter", "--insecure", "--verbose",
		"--write-out", "%{http_code} %{num_connects}\n"}, args...)...)
	if err != nil {
		return 0, err
	}
	if i := strings.Index(errs, "retrying"); i >= 0 {
		return 0, fmt.Errorf("curl has sent a request again: %s", errs[max(0, i-1000):min(len(errs), i+500)])
	}
	ok := 0
	for line := range strings.Lines(out) {
		var connects int
		if _, err := fmt.Sscanf(line, "200 %d\n", &connects); err == nil {
			ok++
			conns += connects
		}
	}
	if ok != n {
		return 0, fmt.Errorf("%d of %d requests were answered:\n%s", ok, n, tail(out))
	}
	return conns, nil
}

// wrk reports a connection that is closed before the answer as a read error. One
// that is closed after an answer with "Connection: close" it opens again.
func wrk(t *testing.T, name, addr string) tool {
	path := look(t, "wrk", "wrk")
	return tool{name: name, run: func(ctx context.Context) (int, error) {
		out, _, err := run(ctx, "", path, "-t1", "-c4", "-d1s", "--timeout", "60s", addr+"/tool/"+name)
		if err == nil && (!regexp.MustCompile(`(?m)^ *[1-9]\d* requests in `).MatchString(out) ||
			strings.Contains(out, "Socket errors") || strings.Contains(out, "Non-2xx")) {
			err = fmt.Errorf("wrk says:\n%s", out)
		}
		return 0, err
	}}
}

// counts are what h2load reports.
type counts struct{ total, done, succeeded, failed, ok int }

func h2load(ctx context.Context, path string, args ...string) (counts, error) {
	var c counts
	out, _, err := run(ctx, "", path, args...)
	if err != nil {
		return c, err
	}
	m := regexp.MustCompile(`requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed`).FindStringSubmatch(out)
	status := regexp.MustCompile(`status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx`).FindStringSubmatch(out)
	if m == nil || status == nil {
		return c, fmt.Errorf("h2load says:\n%s", out)
	}
	for i, p := range []*int{&c.total, &c.done, &c.succeeded, &c.failed} {
		*p, _ = strconv.Atoi(m[i+1])
	}
	c.ok, _ = strconv.Atoi(status[1])
	return c, nil
}

// h2load1 is h2load with HTTP/1.1, where it connects again after "Connection:
// close".
func h2load1(t *testing.T, name, addr string) tool {
	path := look(t, "h2load", "nghttp2-client")
	return tool{name: name, run: func(ctx context.Context) (int, error) {
		c, err := h2load(ctx, path, "--h1", "-n", "600", "-c", "4", addr+"/tool/"+name)
		if err == nil && (c.succeeded != 600 || c.ok != 600 || c.failed != 0) {
			err = fmt.Errorf("h2load: %+v", c)
		}
		return 0, err
	}}
}

// No tool notices a restart. Each of them runs again and again meanwhile.
func TestTools(t *testing.T) {
	body := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(body, bytes.Repeat([]byte("0123456789abcdef"), 8<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	drained := config()
	handed := config()
	handed.Standby = 50 * time.Millisecond
	handed.HandOverIdle = true
	for name, cfg := range map[string]play.Config{"drained": drained, "handed over": handed} {
		t.Run(name, func(t *testing.T) {
			s := testbin.Start(t, cfg)
			_, addrs := s.Newest()
			http, https := "http://"+addrs[plain], "https://"+addrs[secure]
			post := []string{"--data-binary", "@" + body}
			keep, keepPost := curl(t, "curl", http), curl(t, "curl-post", http, post...)
			offer := curl(t, "curl-offers-h2c", http, "--http2") // with every request
			keep.conns, keepPost.conns, offer.conns = 1, 1, 1
			useTools(t, s, cfg, []tool{
				keep,
				keepPost,
				offer,
				curl(t, "curl-tls", https),
				curl(t, "curl-tls-post", https, post...),
				curl(t, "curl-h2", "https://"+addrs[h2], "--http2"),
				curl(t, "curl-h2-post", "https://"+addrs[h2], append(post, "--http2")...),
				curlOnce(t, "curl-h2c", "http://"+addrs[h2c], "--http2-prior-knowledge"),
				curlOnce(t, "curl-h2c-post", "http://"+addrs[h2c], append(post, "--http2-prior-knowledge")...),
				wrk(t, "wrk", http),
				wrk(t, "wrk-tls", https),
				h2load1(t, "h2load-h1", http),
				h2load1(t, "h2load-h1-tls", https),
			})
		})
	}
}

// useTools runs all tools again and again while the service is restarted.
func useTools(t *testing.T, s *testbin.Service, cfg play.Config, tools []tool) {
	stop := make(chan struct{})
	var running sync.WaitGroup
	results := make(chan error, len(tools))
	for _, tool := range tools {
		running.Add(1)
		go func() {
			defer running.Done()
			for runs, conns := 1, 0; ; runs++ {
				n, err := tool.run(t.Context())
				conns += n
				if err == nil && cfg.HandOverIdle && tool.conns != 0 && conns != runs*tool.conns {
					err = fmt.Errorf("%d connections in %d runs", conns, runs)
				}
				if err != nil {
					results <- fmt.Errorf("%s, run %d: %w", tool.name, runs, err)
					return
				}
				select {
				case <-stop:
					t.Logf("%s: %d runs, %d connections", tool.name, runs, conns)
					results <- nil
					return
				default:
				}
			}
		}()
	}
	// Each process has met each tool before it is restarted.
	met := func() {
		t.Helper()
		pid, _ := s.Newest()
		for _, tool := range tools {
			s.Wait(fmt.Sprintf("%d to meet %s", pid, tool.name), func(e play.Event) bool {
				return e.Event == play.Asked && e.PID == pid && e.Text == tool.name
			})
		}
	}
	met()
	for range restarts(3) {
		restart(t, s)
		met()
	}
	close(stop)
	for range tools {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	running.Wait()
	s.Stop()
}

// h2load does not open a new connection after GOAWAY (nghttp2 issue 1197): it gives
// up the requests that it has not made yet. So it can't run through a restart, but
// it can tell that no stream is lost which the server has taken: of those that came
// to a handler in any process, all were answered, and those that it gave up have
// come to none.
func TestH2loadStreams(t *testing.T) {
	path := look(t, "h2load", "nghttp2-client")
	s := testbin.Start(t, config())
	for _, i := range []int{h2, h2c} {
		for range restarts(2) {
			old, addrs := s.Newest()
			url := "http://" + addrs[i] + "/counted"
			if listens[i].TLS {
				url = "https://" + addrs[i] + "/counted"
			}
			type result struct {
				counts counts
				err    error
			}
			results := make(chan result, 1)
			go func() {
				c, err := h2load(t.Context(), path, "-n", "1000000", "-c", "4", "-m", "20", url)
				results <- result{c, err}
			}()
			s.WaitLog(old, "counts")
			_, new := restart(t, s)
			restart(t, s) // for a connection that was made late
			r := <-results
			if r.err != nil {
				t.Fatal(r.err)
			}
			counted := countedBy(t, s, old) + countedBy(t, s, new)
			c := r.counts
			t.Logf("listener %d: %+v, %d came to a handler", i, c, counted)
			if c.succeeded == 0 || c.failed == 0 {
				t.Errorf("h2load: %+v, want a restart in the middle", c)
			}
			if c.succeeded != counted || c.ok != counted {
				t.Errorf("%d streams came to a handler, %d were answered", counted, c.succeeded)
			}
		}
	}
	s.Stop()
}

// countedBy returns how many requests for /counted there were in a process that has
// returned.
func countedBy(t *testing.T, s *testbin.Service, pid int) int {
	t.Helper()
	n := 0
	e := s.WaitLog(pid, "counted ")
	if _, err := fmt.Sscanf(e.Text, "counted %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A TLS session that began before the restart is resumed after it, if the keys of
// the tickets are shared, and only then.
func TestSessionResumption(t *testing.T) {
	path := look(t, "openssl", "openssl")
	for _, share := range []bool{true, false} {
		cfg := config()
		cfg.ShareTicketKeys = share
		s := testbin.Start(t, cfg)
		_, addrs := s.Newest()
		connect := func(version string, args ...string) string {
			t.Helper()
			// The tickets of TLS 1.3 come with the answer.
			out, _, err := run(t.Context(), "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path,
				append([]string{"s_client", "-ign_eof", "-connect", addrs[secure], version}, args...)...)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out, "200 OK") {
				t.Fatalf("no answer in %s", out)
			}
			for _, kind := range []string{"New", "Reused"} {
				if strings.Contains(out, "\n"+kind+", TLSv1.") {
					return kind
				}
			}
			t.Fatalf("neither New nor Reused in %s", out)
			return ""
		}
		versions := []string{"-tls1_2", "-tls1_3"}
		file := func(version string) string { return filepath.Join(s.Dir(), version) }
		for _, version := range versions {
			if got := connect(version, "-sess_out", file(version)); got != "New" {
				t.Errorf("%s: the first session is %s", version, got)
			}
			if got := connect(version, "-sess_in", file(version)); got != "Reused" {
				t.Errorf("%s: the session is %s in the same process, want Reused", version, got)
			}
		}
		want := map[bool]string{true: "Reused", false: "New"}[share]
		for i := range restarts(2) {
			restart(t, s)
			for _, version := range versions {
				if got := connect(version, "-sess_in", file(version)); got != want {
					t.Errorf("%s: ShareTicketKeys %t: the session is %s after %d restarts, want %s", version, share, got, i+1, want)
				}
			}
		}
		s.Stop()
	}
}

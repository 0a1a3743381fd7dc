//go:build unix

package clients_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/facebookgo/grace/gracetest"
)

var screenshots = flag.String("screenshots", "", "directory in which TestDemoPage leaves pictures")

// browser starts Chromium, which ends with the test.
func browser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, // refuses to run as root with it
		chromedp.WindowSize(900, 900),
		chromedp.WSURLReadTimeout(gracetest.Patience))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	do(t, ctx, "start the browser")
	ctx, cancel = context.WithTimeout(ctx, 3*gracetest.Patience)
	t.Cleanup(cancel)
	return ctx
}

func do(t *testing.T, ctx context.Context, what string, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func get[T any](t *testing.T, ctx context.Context, what string, a chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(ctx, a)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return v
}

// picture leaves a picture, if somebody will look at it: on a busy machine it takes longer
// than the page shows what is to be seen.
func picture(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	if *screenshots == "" {
		return
	}
	b := get(t, ctx, "take a picture", chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, ctx context.Context, selector string) string {
	t.Helper()
	return get(t, ctx, "read "+selector, chromedp.TextContent(chromedp.CSS(selector)))
}

// waitFor waits until an expression of JavaScript is true.
func waitFor(t *testing.T, ctx context.Context, expression string) {
	t.Helper()
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(gracetest.Patience))); err != nil {
		page := text(t, ctx, "main")
		t.Fatalf("wait for %s: %v; the page says:\n%s", expression, err, page)
	}
}

// startDemo returns the page of the demo.
func startDemo(t *testing.T) (s *gracetest.Service, page string) {
	t.Helper()
	addr := gracetest.FreeAddr(t)
	s = gracetest.Start(t, exec.Command(gracetest.Build(t, "github.com/facebookgo/grace/gracedemo"),
		"-a0", addr, "-a1", "127.0.0.1:0", "-a2", "127.0.0.1:0"))
	page = "http://" + addr + "/"
	s.WaitAnswer(gracetest.Raw(gracetest.Request{URL: page, Fresh: true}))
	return s, page
}

// openDemo opens the page, and keeps what it shows of the processes.
func openDemo(t *testing.T, ctx context.Context, page string) {
	t.Helper()
	do(t, ctx, "open the page", chromedp.Navigate(page), chromedp.WaitVisible(chromedp.CSS("#slow")))
	get(t, ctx, "watch the processes", chromedp.Evaluate[bool](`globalThis.shown = new Set();
		new MutationObserver(() => {
			for (const row of document.querySelectorAll("#processes tr")) shown.add(row.cells[1].textContent + " " + row.cells[2].textContent);
		}).observe(document.getElementById("processes"), { childList: true });
		true`))
}

// showed is whether the page shows a process in a state, or has done so.
func showed(pid int, state string) string { return fmt.Sprintf(`shown.has("%d %s")`, pid, state) }

// The page of the demo shows restarts that its button makes, and a slow request that
// outlives its process.
func TestDemoPage(t *testing.T) {
	s, page := startDemo(t)
	first := s.PID()
	ctx := browser(t)
	openDemo(t, ctx, page)
	waitFor(t, ctx, `document.getElementById("requests").textContent > 20`)
	waitFor(t, ctx, showed(first, "serves"))
	picture(t, ctx, "serves")

	do(t, ctx, "send a slow request", chromedp.Click(chromedp.CSS("#slow")))
	waitFor(t, ctx, `document.querySelector("#slows .waits") !== null`)
	do(t, ctx, "restart", chromedp.Click(chromedp.CSS("#restart button")))
	waitFor(t, ctx, `document.getElementById("generation").textContent === "2"`)
	waitFor(t, ctx, showed(first, "stands by"))
	picture(t, ctx, "stands-by")
	waitFor(t, ctx, showed(first, "drains"))
	picture(t, ctx, "drains")
	// An answer from before that comes only now, on another connection, changes nothing.
	late := fmt.Sprintf(`learn({ ...processes.get(%d), drains: false }).drains`, first)
	if !get(t, ctx, "have a late answer", chromedp.Evaluate[bool](late)) {
		t.Error("a late answer made the page forget that the process drains")
	}
	waitFor(t, ctx, `document.querySelector("#slows .answered") !== null`)
	if by := text(t, ctx, "#slows .answered td:nth-child(3)"); by != strconv.Itoa(first) {
		t.Errorf("the slow request was answered by %s, want %d", by, first)
	}
	waitFor(t, ctx, showed(first, "gone"))
	waitFor(t, ctx, `document.querySelectorAll("#processes .serves").length === 1`)
	if failed := text(t, ctx, "#failed"); failed != "0" {
		t.Errorf("%s requests failed", failed)
	}
	picture(t, ctx, "gone")
}

// A child that is killed on the standby of its parent is shown as gone, and its parent as
// serving again.
func TestDemoPageKilledChild(t *testing.T) {
	s, page := startDemo(t)
	first := s.PID()
	ctx := browser(t)
	openDemo(t, ctx, page)
	waitFor(t, ctx, showed(first, "serves"))
	do(t, ctx, "restart", chromedp.Click(chromedp.CSS("#restart button")))
	waitFor(t, ctx, showed(first, "stands by"))
	running := s.Processes()
	if len(running) != 2 {
		t.Fatalf("%d processes run, want the parent and its child", len(running))
	}
	child := running[1]
	s.Signal(child, syscall.SIGKILL)
	waitFor(t, ctx, showed(child, "gone"))
	waitFor(t, ctx, fmt.Sprintf(`document.querySelector("#processes .serves td:nth-child(2)").textContent === "%d"`, first))
	if generation := text(t, ctx, "#generation"); generation != "1" {
		t.Errorf("the page shows generation %s, want 1", generation)
	}
}

// Without JavaScript the page says who serves, and its button restarts.
func TestDemoPageWithoutScripts(t *testing.T) {
	s, page := startDemo(t)
	ctx := browser(t)
	if _, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	do(t, ctx, "open the page",
		chromedp.Navigate(page),
		chromedp.WaitVisible(chromedp.CSS("noscript p")))
	if pid := text(t, ctx, "#pid"); pid != strconv.Itoa(s.PID()) {
		t.Errorf("the page names %s, want %d", pid, s.PID())
	}
	picture(t, ctx, "without-scripts")
	do(t, ctx, "restart",
		chromedp.Click(chromedp.CSS("#restart button")),
		chromedp.WaitVisible(`//span[@id="said"][starts-with(., "restarted")]`))
	// A connection that the browser has open from before may still be the old process's.
	gracetest.Poll(t, "the page of generation 2", func() bool {
		do(t, ctx, "load the page again", chromedp.Navigate(page), chromedp.WaitVisible(chromedp.CSS("noscript p")))
		return text(t, ctx, "#generation") == "2"
	})
}

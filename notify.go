package grace

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/facebookgo/grace/internal/handoff"
)

// What the service manager is told, as sd_notify(3) describes. It believes only
// the process that it takes for the main one, so a child is silent until its
// parent has named it, and a parent after that. Errors are ignored: a manager that
// does not listen is no reason not to serve.

// manager is the service manager as this process sees it.
type manager struct {
	mu   sync.Mutex
	up   bool // READY=1 was sent for the first time
	left bool // another process is the main one
	keep bool // it keeps our sockets
}

// tell sends lines if this process is the main one.
func (m *manager) tell(lines ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.left && isMain(handoff.This()) {
		notify(lines...)
	}
}

// isMain reports whether this process is the main one, unless it has named another.
// One that has executed the program anew has always been.
func isMain(h *handoff.Process) bool {
	comeback, _ := h.Comeback()
	return comeback || h.Sole()
}

// status is a line for people.
func status(format string, args ...any) string {
	return "STATUS=" + strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
}

// ready says that the service is up, if this process is the first of it.
func (m *manager) ready(h *handoff.Process) {
	origin, _ := h.Origin()
	comeback, _ := h.Comeback()
	if origin != handoff.Fresh && origin != handoff.Manager && !comeback {
		return
	}
	if comeback && !h.IsReady() {
		return // the one that serves in the interim is not to be forgotten
	}
	m.mu.Lock()
	first := !m.up
	m.up = true
	m.mu.Unlock()
	if first {
		m.tell("READY=1", status("generation %d serves", h.Generation()))
	}
}

// reload says that a restart begins. One of the next messages says how it ended.
func (m *manager) reload(h *handoff.Process) {
	m.tell("RELOADING=1", monotonic(), status("generation %d serves, the next one starts", h.Generation()))
}

// standby says that a child serves. The reload has not ended: it may come to
// nothing.
func (m *manager) standby(h *handoff.Process, child *handoff.Child) {
	m.tell(status("generation %d serves as process %d, generation %d stands by", h.Generation()+1, child.PID(), h.Generation()))
}

// failed says that this process goes on, and why.
func (m *manager) failed(h *handoff.Process, err error) {
	m.tell("READY=1", status("generation %d serves, since the restart failed: %.500s", h.Generation(), err))
}

// successor names child as the main process. All lines go in one message: after
// the first one this process is not believed any more. It reports whether there is
// a manager to look after the child.
func (m *manager) successor(h *handoff.Process, child *handoff.Child) bool {
	if !managed() {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	child.Disown()
	notify("MAINPID="+strconv.Itoa(child.MainPID()), "READY=1", status("generation %d serves", h.Generation()+1))
	m.left = true
	return true
}

// stopping says that the service ends.
func (m *manager) stopping(h *handoff.Process) {
	m.tell("STOPPING=1", status("generation %d stops", h.Generation()))
}

// store makes the manager keep the sockets of this process: now, or when it is the
// main one.
func (m *manager) store(h *handoff.Process) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keep = true
	m.storeNow(h)
}

// storeNow is store. mu is held.
func (m *manager) storeNow(h *handoff.Process) {
	if !m.keep || m.left || !isMain(h) || !managed() {
		return
	}
	keep, drop := h.Store()
	for _, name := range drop {
		notify("FDSTOREREMOVE=1", "FDNAME="+name)
	}
	for _, k := range keep {
		_ = k.Send(func(fd int) error { return notifyFD(fd, "FDSTORE=1", "FDNAME="+k.Name) })
	}
}

// How much more time the manager is asked for while a stop takes long, and how
// often. The first is long enough for a machine that is very busy.
const (
	extension      = 30 * time.Second
	extensionEvery = 10 * time.Second
)

// extend asks for more time to stop, for limit in all since begin.
func (m *manager) extend(begin time.Time, limit time.Duration) {
	if left := limit - time.Since(begin); left > 0 {
		m.tell("EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(min(extension, left+time.Second).Microseconds(), 10))
	}
}

// watch does what the main process must do for as long as it is that: it sends the
// signs of life that a manager with a watchdog wants to see. It returns when quit
// is closed.
func (m *manager) watch(h *handoff.Process, quit <-chan struct{}) {
	if !isMain(h) {
		select {
		case <-h.Alone():
		case <-quit:
			return
		}
	}
	m.mu.Lock()
	m.storeNow(h)
	m.mu.Unlock()
	interval := watchdogInterval()
	if interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		m.tell("WATCHDOG=1")
		select {
		case <-tick.C:
		case <-quit:
			return
		}
	}
}

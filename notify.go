package grace

import (
	"strconv"
	"sync"

	"github.com/facebookgo/grace/internal/handoff"
)

// What the service manager is told, as sd_notify(3) describes. It believes only
// the process that it takes for the main one, so a child is silent until its
// parent has named it. Errors are ignored: a manager that does not listen is no
// reason not to serve.

var readyOnce sync.Once

// reportReady says that the service is up, if this process is the first of it.
func reportReady(h *handoff.Process) {
	origin, _ := h.Origin()
	if origin == handoff.Fresh || origin == handoff.Manager {
		readyOnce.Do(func() { notify("READY=1") })
	}
}

// reportSuccessor names the process that takes over as the main one. Both lines go in one
// message: after the first one this process is not believed any more.
func reportSuccessor(child *handoff.Child) {
	notify("MAINPID="+strconv.Itoa(child.MainPID()), "READY=1")
}

// reportStopping says that the service ends.
func reportStopping(h *handoff.Process) {
	if h.Sole() {
		notify("STOPPING=1")
	}
}

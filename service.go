package grace

import "context"

// A Service is something that listens in this process and must survive its
// restarts. Its methods are called one at a time, but for those of [Aborter] and
// [Counter]. All but Drain hold up the engine, and with it what other services do.
type Service interface {
	// Start begins to serve and returns at once: the engine waits for it.
	// Signals are caught from here on. When s serves, it should call
	// CloseParent, here or from a goroutine.
	Start()

	// Pause stops accepting but closes no listener. It returns when nothing
	// more can be accepted, or when ctx ends, after two seconds.
	Pause(ctx context.Context)

	// Resume takes up accepting after Pause: the child has died.
	Resume()

	// Drain finishes what is in flight, closes the listeners and returns what
	// Run returns. It may be called after Pause, or without it.
	Drain() error
}

// An Announcer is a [Service] that wants to know when it is told to stop and no
// process follows. It goes on accepting, and should tell its clients to go
// elsewhere. Drain follows after the StopDelay, which may be zero.
type Announcer interface {
	Service
	Announce()
}

// An Aborter is a [Service] whose Drain can be cut short: Abort closes what is
// open, and Drain returns at once. That happens if the successor of this process
// has died when the service manager took it for the main process already: it
// starts the service anew, but not before this process has left. Abort is called while
// Drain runs, or just before it or after.
type Aborter interface {
	Service
	Abort()
}

// A Counter is a [Service] that knows how many connections it has, which the control
// socket tells. Connections is called at any time, from any goroutine.
type Counter interface {
	Service
	Connections() int
}

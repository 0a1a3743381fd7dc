package gracectl

import "time"

// Status is what a process of a service says about itself.
type Status struct {
	PID        int `json:"pid"`
	Generation int `json:"generation"` // 1 for the first process of the service, one more after each restart

	// Phase is "serving"; "upgrading", while it serves and a restart is under way;
	// "standby"; "stopping", while it was told to stop and still accepts;
	// "draining"; or "not serving", before it serves and after that.
	Phase   string `json:"phase"`
	Upgrade string `json:"upgrade,omitempty"` // what the restart is doing

	Started     time.Time `json:"started"`
	Connections int       `json:"connections"` // of the services that count them

	Parent      *Process `json:"parent,omitempty"` // as long as it is there
	Child       *Process `json:"child,omitempty"`  // that starts, or has taken over
	LastFailure *Failure `json:"last_failure,omitempty"`
}

// Process is another process of the service.
type Process struct {
	PID     int       `json:"pid"`
	Started time.Time `json:"started,omitzero"` // zero if that is not known
}

// Failure is an upgrade of this process that has failed.
type Failure struct {
	Time  time.Time `json:"time"`
	Error string    `json:"error"`
}

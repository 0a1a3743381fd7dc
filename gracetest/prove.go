//go:build unix

package gracetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/facebookgo/grace/internal/proc"
)

// Plan is what [Service.Prove] does to a service.
type Plan struct {
	// Clients make requests all the time, each with a goroutine of its own. See
	// [Mix].
	Clients []Client
	// Restarts is how often the service is restarted, and nothing else. There is one
	// at least.
	Restarts int
	// Kills is how often either side of a handover is killed with SIGKILL: the new
	// process within the standby, so that the old one must serve on, or the old one, so
	// that the new one must. When and whom is by chance. Of a service that keeps its pid
	// only new processes are killed, and it must have a standby.
	Kills int
	// BadPrograms asks for a restart with each of some programs that can't serve: one
	// that is missing, is no program, exits at once, hangs, and so on.
	BadPrograms bool
	// Standby is how long the old process can take over again once the new one is
	// there, as the service has it. Zero means 5 seconds, the default of this library.
	// Less than zero means that it can't; then only old processes are killed.
	Standby time.Duration
	// Seed decides what is left to chance. Zero means another one each time; it is
	// logged.
	Seed uint64
}

const defaultStandby = 5 * time.Second

// Prove does to a service what the plan says, in random order, while clients make
// requests. It fails the test if a request is lost, but for those that a process had
// which was killed, if a process or a descriptor is left that was not there before, or if
// the service does not go on. The service must serve before, and serves after it.
//
// The latency in the report is that on a machine on which the harness works, too. What a
// [Paced] client can't ask while the harness pauses the load does not count as late.
func (s *Service) Prove(plan Plan) *Report {
	t := s.t
	t.Helper()
	if len(plan.Clients) == 0 {
		t.Fatalf("gracetest: the plan has no clients, so nothing can be proved: set Plan.Clients, to gracetest.Mix(url) for example")
	}
	if plan.Standby == 0 {
		plan.Standby = defaultStandby
	}
	if plan.Kills > 0 && s.KeepsPID && plan.Standby < 0 {
		t.Fatalf("gracetest: a service that keeps its pid, and has no standby, has no process that could be killed: set Plan.Kills to 0")
	}
	if plan.Seed == 0 {
		plan.Seed = rand.Uint64()
	}
	t.Logf("the seed of the plan is %d", plan.Seed)
	p := &proof{
		Service: s,
		plan:    plan,
		chance:  rand.New(rand.NewPCG(plan.Seed, 0)),
		load:    NewLoad(t, plan.Clients...),
	}
	over := false
	defer func() {
		if over {
			return
		}
		// A step has failed the test; that a request was lost may tell why.
		if r := p.load.Finish(); len(r.Losses) > 0 {
			t.Logf("%s", r.account(s.journal))
		}
	}()
	p.load.excuse(p.wasKilled)
	p.answers()
	p.run()
	r := p.load.Finish()
	over = true
	r.Restarts, r.Refused = p.restarts, p.refused
	r.LeakedDescriptors, r.LeakedProcesses = p.leaked(), p.zombies()
	r.check(t, s.journal)
	return r
}

// proof is a plan that is being carried out.
type proof struct {
	*Service
	plan   Plan
	chance *rand.Rand
	load   *Load

	step string // what is being done

	restarts, refused int

	atRest      int      // how many processes there are between two restarts
	descriptors []string // of the one that serves

	mu    sync.Mutex
	kills []kill
}

// kill is when a process was killed, and was seen to have gone.
type kill struct{ sent, gone time.Time }

// wasKilled reports whether a request was under way when a process was killed. One that
// is begun a little later counts if its connection is older: a client may not have
// noticed.
func (p *proof) wasKilled(opened, begun, ended time.Time) bool {
	const notice = time.Second
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.kills, func(k kill) bool {
		return !ended.Before(k.sent) && (k.gone.IsZero() || opened.Before(k.gone) && begun.Before(k.gone.Add(notice)))
	})
}

func (p *proof) run() {
	p.t.Helper()
	p.atRest = len(p.Processes())
	p.restart()
	p.load.Pause()
	p.descriptors, _ = proc.Descriptors(p.PID())
	p.load.Resume()

	var steps []func()
	for range p.plan.Restarts - 1 {
		steps = append(steps, p.restart)
	}
	for range p.plan.Kills {
		if !p.KeepsPID && (p.plan.Standby < 0 || p.chance.IntN(2) == 0) {
			steps = append(steps, p.killOld)
		} else {
			steps = append(steps, p.killNew)
		}
	}
	if p.plan.BadPrograms {
		good, err := os.Readlink(p.Path())
		if err != nil {
			p.t.Fatalf("find the program: %v", err)
		}
		dir := p.t.TempDir()
		for _, bad := range badPrograms {
			path := bad.make(p.t, dir, good)
			steps = append(steps, func() { p.refuse(bad, path, good) })
		}
	}
	p.chance.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	for _, step := range steps {
		step()
	}
}

// answers waits until each client has had an answer, more or less.
func (p *proof) answers() {
	p.t.Helper()
	p.load.WaitMore(2 * len(p.plan.Clients))
}

// rest waits until nothing is left of a handover.
func (p *proof) rest() {
	p.t.Helper()
	p.poll(fmt.Sprintf("the service to have %d processes again", p.atRest), func() bool {
		now := p.Processes()
		if !slices.Contains(now, p.PID()) {
			p.t.Fatalf("process %d, which should serve, has gone, after %s; left are %v", p.PID(), p.step, now)
		}
		return len(now) <= p.atRest
	})
}

func (p *proof) restart() {
	p.t.Helper()
	p.step = "a restart"
	p.Restart()
	p.restarts++
	p.answers()
	p.rest()
}

// begin asks for a restart and returns when the new process is there.
func (p *proof) begin() (old, new int) {
	p.t.Helper()
	before := p.Processes()
	old = p.PID()
	p.Signal(old, p.RestartSignal)
	again := p.asking(old)
	p.poll(p.follower(old), func() bool {
		for _, pid := range p.Processes() {
			if !slices.Contains(before, pid) {
				new = pid
				return true
			}
		}
		again()
		return false
	})
	return old, new
}

// moment is one within d, more likely an early one: that is when most happens.
func (p *proof) moment(d time.Duration) time.Duration {
	part := p.chance.Float64()
	return time.Duration(float64(d) * part * part * part)
}

// killNew kills the new process of a handover. The old one must serve on.
func (p *proof) killNew() {
	p.t.Helper()
	// From here on there is no time to lose: the standby is running.
	begun := time.Now()
	deadline := begun.Add(p.plan.Standby * 8 / 10)
	old, new := p.begin()
	there := true
	for end := time.Now().Add(p.moment(time.Until(deadline))); there && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		there = slices.Contains(p.Processes(), old)
	}
	there = there && p.freeze(old) // else the standby might end now
	if !there && time.Since(begun) < p.plan.Standby {
		p.t.Fatalf("process %d has gone within the standby of %v: set Plan.Standby to what the service has", old, p.plan.Standby)
	}
	late := time.Now().After(deadline)
	if !late {
		p.step = fmt.Sprintf("the new process %d of a handover was killed", new)
		p.kill(new)
	}
	if there {
		p.Signal(old, syscall.SIGCONT)
	}
	if late { // it can't serve on any more
		p.journal.note("too late to kill process %d", new)
		p.follow(new)
		return
	}
	p.refused++
	p.answers()
	p.rest()
}

// freeze is Freeze for a process that may have gone, when it reports false.
func (p *proof) freeze(pid int) bool {
	p.t.Helper()
	if !slices.Contains(p.Processes(), pid) || syscall.Kill(pid, syscall.SIGSTOP) != nil {
		return false
	}
	p.awaitStop(pid)
	return slices.Contains(p.Processes(), pid)
}

// killOld kills the old process of a handover. The new one must serve.
func (p *proof) killOld() {
	p.t.Helper()
	old, new := p.begin()
	time.Sleep(p.moment(max(p.plan.Standby, 0)))
	if slices.Contains(p.Processes(), old) {
		p.step = fmt.Sprintf("the old process %d of a handover was killed", old)
		p.kill(old)
	}
	p.follow(new)
}

// follow waits until the process new is the one that serves.
func (p *proof) follow(new int) {
	p.t.Helper()
	if !p.KeepsPID {
		p.WaitExit(p.PID())
		p.Follow(new)
	}
	p.restarts++
	p.answers()
	p.rest()
}

// kill kills a process that may have requests, and waits until it has gone.
func (p *proof) kill(pid int) {
	p.t.Helper()
	p.mu.Lock()
	p.kills = append(p.kills, kill{sent: time.Now()})
	k := &p.kills[len(p.kills)-1]
	p.mu.Unlock()
	p.end(pid)
	p.mu.Lock()
	k.gone = time.Now()
	p.mu.Unlock()
}

// end ends a process that has no request, or whose requests kill has excused.
func (p *proof) end(pid int) {
	p.t.Helper()
	p.journal.note("%v is sent to process %d", syscall.SIGKILL, pid)
	_ = syscall.Kill(pid, syscall.SIGKILL) // it may have exited just now
	p.WaitExit(pid)
}

// refuse asks for a restart with a program that can't serve.
func (p *proof) refuse(bad badProgram, path, good string) {
	p.t.Helper()
	p.step = "a restart with a bad program: " + bad.name
	p.Install(path)
	before := p.Processes()
	old := p.PID()
	p.Signal(old, p.RestartSignal)
	// A process may come of it, or none, or one that is gone before anyone sees it. One
	// that stays must be seen, however late: the service would wait for it.
	came, settled := false, time.Now().Add(settle)
	if bad.stays {
		settled = time.Now().Add(askAgain)
	}
	what := "the end of what has come of " + p.step
	over := func() bool {
		now := p.Processes()
		if !slices.Contains(now, old) {
			p.t.Fatalf("process %d, which should serve, has gone, after %s", old, p.step)
		}
		fresh := slices.DeleteFunc(now, func(pid int) bool { return slices.Contains(before, pid) })
		if len(fresh) == 0 {
			return came || time.Now().After(settled)
		}
		came = true
		if bad.stays {
			time.Sleep(p.moment(settle))
			for _, pid := range fresh {
				p.end(pid)
			}
		}
		return false
	}
	p.poll(what, over)
	p.answers() // so that a service which is slow has had its time
	p.poll(what, over)
	p.Install(good)
	p.refused++
	p.rest()
}

// settle is how long the harness looks for the process of a bad program.
const settle = time.Second

// lingering is how long what a service has at rest may take to go away. What is leaked does
// not.
const lingering = 10 * time.Second

// leaked returns the descriptors that the service has at rest, and did not have at first.
func (p *proof) leaked() []string {
	for deadline := time.Now().Add(lingering); ; time.Sleep(10 * time.Millisecond) {
		now, err := proc.Descriptors(p.PID())
		if err != nil || p.descriptors == nil {
			return nil // no /proc
		}
		for _, d := range p.descriptors {
			if i := slices.Index(now, d); i >= 0 {
				now = slices.Delete(now, i, i+1)
			}
		}
		if len(now) == 0 || time.Now().After(deadline) {
			return now
		}
	}
}

// zombies returns the children of the service that nobody has waited for.
func (p *proof) zombies() []int {
	for deadline := time.Now().Add(lingering); ; time.Sleep(10 * time.Millisecond) {
		var found []int
		children, _ := proc.Children(p.PID()) // there may be no /proc
		for _, pid := range children {
			if s, err := proc.ReadStat(pid); err == nil && s.Exited() {
				found = append(found, pid)
			}
		}
		if len(found) == 0 || time.Now().After(deadline) {
			return found
		}
	}
}

//go:build unix

// Package play is what every server of the tests does, whichever library it is
// built with: it reads its part, reports what happens, and answers questions.
package play

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// EnvConfig names the configuration file; a process that has it is a server.
const EnvConfig = "GRACE_TESTBIN"

// Config is what a server does.
type Config struct {
	Role    string // which server it is
	Listens []Listen

	StartTimeout time.Duration // zero for the default of the library
	Standby      time.Duration // zero for none, so that tests are quick
	StopTimeout  time.Duration
	KillTimeout  time.Duration
	IdleGrace    time.Duration // zero for the default of the library, less for none
	StopDelay    time.Duration
	TermTimeout  time.Duration

	Goodbye bool // role talk: says so

	WaitHijacked, HandOverIdle, ShareTicketKeys, FDStore, KeepPID bool

	Delay    time.Duration     // before it does anything
	PreStart string            // error that the pre-start hook returns; or "panic", "exit", "hang"
	SetEnv   map[string]string // set by the pre-start hook
	Chdir    string            // where the process goes after its start
	PIDFile  string

	ControlSocket string
	ReplaceStale  bool
	Says          Says
	KeepAlive     time.Duration // role http: of ListenConfig
	Records       bool          // role http: report the records of the option Logger
}

// Says is what a server of the role "says" does before it serves, in this order.
type Says struct {
	Lines    int    // how many it writes to standard error
	Helper   string // start a process that writes HelperLines there when there is this file
	Redirect string // make this file standard error, and say so there
	Until    string // wait for this file
	More     int    // write as many lines again
	Then     string // "fatal" or "panic"; or else it serves
}

// Line is a line that is written to standard error.
func Line(who string, i int) string {
	return fmt.Sprintf("%s %d %s\n", who, i, strings.Repeat(".", 90))
}

// HelperLines is more than a pipe holds.
const HelperLines = 1000

// Listen is one address.
type Listen struct {
	Network string // for the role http: tcp, or unix; "named" asks for a name
	Addr    string
	TLS     bool // for the roles http and talk
	HTTP2   bool // too
	Shared  bool // with SO_REUSEPORT
}

// Event is what a server reports, one JSON object a line.
type Event struct {
	Event string   `json:"event"`
	PID   int      `json:"pid"`
	Addrs []string `json:"addrs,omitempty"`
	Text  string   `json:"text,omitempty"`
}

// Events.
const (
	Asked    = "asked"    // Text is a question that takes time
	Serving  = "serving"  // Addrs are those it listens on
	Log      = "log"      // Text is a line that the library logged
	Record   = "record"   // Text is a record that the library logged, in JSON
	Returned = "returned" // Text is the error of Serve or Wait
	Failed   = "failed"   // Text is why it can't serve
)

// ReadConfig reads the part that this process plays.
func ReadConfig() (Config, error) {
	var cfg Config
	b, err := os.ReadFile(os.Getenv(EnvConfig))
	if err != nil {
		return cfg, err
	}
	return cfg, json.Unmarshal(b, &cfg)
}

// Fail reports why the server can't serve, and ends it.
func Fail(err error) {
	Emit(Event{Event: Failed, Text: err.Error()})
	os.Exit(1)
}

// Done reports that Serve, or what does its work, has returned err.
func Done(err error) error {
	text := ""
	if err != nil {
		text = err.Error()
	}
	Emit(Event{Event: Returned, Text: text})
	return err
}

func init() {
	if os.Getenv(EnvConfig) == "" {
		return
	}
	if cfg, err := ReadConfig(); err == nil && cfg.Role == "panic in init" {
		panic("on purpose, in init")
	}
}

var emitting sync.Mutex

// Emit writes an event. One write call, so that the lines of two processes do
// not mix.
func Emit(e Event) {
	e.PID = os.Getpid()
	b, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	emitting.Lock()
	defer emitting.Unlock()
	_, _ = os.Stdout.Write(append(b, '\n'))
}

// Handle answers / with the pid, and what Answer knows under other paths. Under
// /hijack it takes the connection over and sends "taken".
func Handle(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/hijack" {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			Fail(err)
		}
		fmt.Fprintln(c, "taken")
		return // and c stays open
	}
	fmt.Fprint(w, Answer(strings.TrimPrefix(r.URL.Path, "/")))
}

// Answer is what all servers can do: "" for the pid, "sleep 1s" for the pid
// after that time, "until FILE" for the pid as soon as there is that file, "fds"
// for the open descriptors, "goroutines" for their number, "stderr TEXT" to write
// that to standard error, "env NAME", "dir", and "run" for what the program prints that is installed now. "limit R N" sets
// the resource limit R, "exit 1" and "panic" end the process.
func Answer(question string) string {
	verb, arg, _ := strings.Cut(question, " ")
	switch verb {
	case "":
		return fmt.Sprint(os.Getpid())
	case "sleep":
		d, err := time.ParseDuration(arg)
		if err != nil {
			return err.Error()
		}
		Emit(Event{Event: Asked, Text: question})
		time.Sleep(d)
		return fmt.Sprint(os.Getpid())
	case "until":
		Emit(Event{Event: Asked, Text: question})
		for {
			if _, err := os.Stat(arg); err == nil {
				return fmt.Sprint(os.Getpid())
			}
			time.Sleep(5 * time.Millisecond)
		}
	case "exit":
		code, err := strconv.Atoi(arg)
		if err != nil {
			return err.Error()
		}
		os.Exit(code)
	case "panic":
		go panic("on purpose")
		select {}
	case "limit":
		var resource int
		var value uint64
		if _, err := fmt.Sscan(arg, &resource, &value); err != nil {
			return err.Error()
		}
		return limit(resource, value)
	case "goroutines":
		return fmt.Sprint(runtime.NumGoroutine())
	case "fds":
		return Descriptors()
	case "stderr":
		fmt.Fprintln(os.Stderr, arg)
		return "written"
	case "env":
		return os.Getenv(arg)
	case "run":
		out, err := exec.Command(os.Args[0]).CombinedOutput()
		return fmt.Sprint(string(out), err)
	case "dir":
		dir, err := os.Getwd()
		if err != nil {
			return err.Error()
		}
		return dir
	}
	return "what is " + verb + "?"
}

// Descriptors lists the open descriptors and what they are open on, but for the
// connections of the moment and the null device.
func Descriptors() string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err.Error()
	}
	var list []string
	for _, e := range entries {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err != nil {
			return err.Error()
		}
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil {
			continue // the directory itself
		}
		if target == "/dev/null" || strings.HasPrefix(target, "socket:") && !isKept(fd) {
			continue
		}
		kind, _, _ := strings.Cut(target, ":")
		list = append(list, kind)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// isKept reports whether the socket fd is a listener, a datagram socket, or a control
// socket, which has no name. Another one is the connection of a client, and may be
// closed by now.
func isKept(fd int) bool {
	if typ, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE); err == nil && typ == syscall.SOCK_DGRAM {
		return true
	}
	listens, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	if err != nil || listens != 0 {
		return err == nil
	}
	sa, err := syscall.Getsockname(fd)
	u, ok := sa.(*syscall.SockaddrUnix)
	return err == nil && ok && (u.Name == "" || u.Name == "@") // as Go calls what has none
}

// ServeConn answers lines.
func ServeConn(c net.Conn) { ServeConnWith(c, Answer) }

// ServeConnWith answers lines with what answer says.
func ServeConnWith(c net.Conn, answer func(string) string) {
	defer c.Close()
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if _, err := fmt.Fprintln(c, answer(lines.Text())); err != nil {
			return
		}
	}
}

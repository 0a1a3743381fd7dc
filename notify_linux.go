package grace

import (
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// notify sends lines to the service manager, in one message.
func notify(lines ...string) {
	_, _ = daemon.SdNotify(false, strings.Join(lines, "\n"))
}

// notifyFD is notify with a descriptor.
func notifyFD(fd int, lines ...string) error {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(socket)
	to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	err = unix.Sendmsg(socket, []byte(strings.Join(lines, "\n")), unix.UnixRights(fd), to, unix.MSG_NOSIGNAL)
	return os.NewSyscallError("sendmsg", err)
}

// managed reports whether there is a service manager that wants to be told.
func managed() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// monotonic is the time that a message RELOADING=1 must come with.
func monotonic() string { return strings.TrimSpace(daemon.SdNotifyMonotonicUsec()) }

// watchdogInterval is how long this process may be silent as sd_watchdog_enabled(3)
// says, or 0. What can't be understood is as good as nothing.
func watchdogInterval() time.Duration {
	d, _ := daemon.SdWatchdogEnabled(false)
	return d
}

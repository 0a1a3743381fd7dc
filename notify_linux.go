package grace

import (
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notify sends lines to the service manager, in one message.
func notify(lines ...string) {
	_, _ = daemon.SdNotify(false, strings.Join(lines, "\n"))
}

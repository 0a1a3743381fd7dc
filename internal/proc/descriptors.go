//go:build unix

package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Descriptors lists what the descriptors of a process are open on, in order: "pipe",
// "anon_inode:[eventpoll]", "/dev/null", a path, "listener" and so on. Connections
// over TCP and connected or accepted ones of unix sockets that have a path are left out:
// they come and go.
func Descriptors(pid int) ([]string, error) {
	kinds, err := socketKinds(pid)
	if err != nil {
		return nil, err
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed since
		}
		inode, isSocket := strings.CutPrefix(target, "socket:[")
		switch {
		case isSocket:
			switch kind, known := kinds[strings.TrimSuffix(inode, "]")]; {
			case !known:
				list = append(list, "socket")
			case kind != connection:
				list = append(list, kind)
			}
		case strings.HasPrefix(target, "pipe:"):
			list = append(list, "pipe")
		default:
			list = append(list, target)
		}
	}
	slices.Sort(list)
	return list, nil
}

const connection = "connection"

// socketKinds returns what the sockets of the network namespace of a process are, by their
// inodes: a connection, "listener", "datagram socket" or "unix socket".
func socketKinds(pid int) (map[string]string, error) {
	const listens = "0A" // TCP_LISTEN, see proc_pid_net(5)
	kinds := make(map[string]string)
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6", "unix"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if os.IsNotExist(err) && strings.HasSuffix(table, "6") {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			switch {
			case table == "unix" && len(f) >= 7:
				// Num RefCount Protocol Flags Type St Inode [Path]
				const accepts, connected = "00010000", "03"
				switch {
				case f[3] == accepts:
					kinds[f[6]] = "listener"
				case f[5] == connected && len(f) > 7:
					kinds[f[6]] = connection
				default:
					kinds[f[6]] = "unix socket"
				}
			case table != "unix" && len(f) >= 10:
				// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
				switch {
				case strings.HasPrefix(table, "udp"):
					kinds[f[9]] = "datagram socket"
				case f[3] == listens:
					kinds[f[9]] = "listener"
				default:
					kinds[f[9]] = connection
				}
			}
		}
	}
	return kinds, nil
}

#!/usr/bin/env bash
# A real systemd for tests: it boots in namespaces of its own, in about a second.
#
#	systemd-ns.sh run COMMAND [ARG...]   boot, run the command in there, end it all;
#	                                     the exit status is that of the command
#	systemd-ns.sh install                install Debian's package systemd if there is none
#
# Needs root, cgroup v2 (beside v1 will do), util-linux 2.38 or later. The files are
# those of the host, but for /dev, /etc, /opt, /proc, /run, /sys and /var/lib/systemd,
# which are private. /etc is a copy without units: none of the host's is started. The
# network is a loopback interface. /run/systemd-ns tells a command where it is.
set -euo pipefail

die() {
	echo "systemd-ns.sh: $*" >&2
	exit 1
}

find_systemd() {
	local dir
	for dir in /usr/lib/systemd /lib/systemd; do
		if [ -x $dir/systemd ]; then
			echo $dir
			return
		fi
	done
}

# The first process of the namespaces goes to its cgroup before that becomes the root
# of a namespace. Its launcher stays outside: a root cgroup with a strange process in
# it could not have controllers.
enter() {
	echo 0 >"$cgroup/cgroup.procs"
	exec unshare --cgroup -- "$BASH" "$0" boot
}

# boot is the first process, and becomes systemd.
boot() {
	local node unit dev=/run/dev units=/run/units
	mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run

	mkdir $dev
	mount -t tmpfs -o mode=755,nosuid tmpfs $dev
	for node in null zero full random urandom tty; do
		: >$dev/$node
		mount --bind /dev/$node $dev/$node
	done
	ln -s /proc/self/fd $dev/fd
	ln -s /proc/self/fd/0 $dev/stdin
	ln -s /proc/self/fd/1 $dev/stdout
	ln -s /proc/self/fd/2 $dev/stderr
	mkdir $dev/pts $dev/shm
	mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts $dev/pts
	ln -s pts/ptmx $dev/ptmx
	mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs $dev/shm
	: >$dev/console
	mount --bind "$console" $dev/console
	mount --move $dev /dev

	mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /sys
	mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
	# The limits of the kernel, which systemd would raise, are the host's.
	mount --bind /proc/sys /proc/sys
	mount -o remount,bind,ro /proc/sys

	cp -a /etc /run/etc
	mount --bind /run/etc /etc
	rm -rf /etc/systemd
	mkdir -p /etc/systemd/system
	tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
	mount -t tmpfs -o mode=755 tmpfs /opt
	mount -t tmpfs -o mode=755 tmpfs /var/lib/systemd

	# No start limit, which tests that use one unit again and again would reach.
	cat >/etc/systemd/system.conf <<-END
		[Manager]
		LogTarget=journal-or-kmsg
		ShowStatus=no
		DefaultStartLimitIntervalSec=0
	END
	cat >/etc/systemd/journald.conf <<-END
		[Journal]
		Storage=volatile
		RateLimitIntervalSec=0
		ReadKMsg=no
		Audit=no
	END
	mkdir -p $units /run/systemd/system /run/lock
	for unit in sysinit basic sockets timers paths slices local-fs shutdown multi-user; do
		printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' $unit >$units/$unit.target
	done
	printf 'Wants=systemd-journald.service\nAfter=systemd-journald.service\n' >>$units/sysinit.target
	printf 'Requires=sysinit.target\nWants=sockets.target\nAfter=sysinit.target sockets.target\n' >>$units/basic.target
	printf 'Requires=basic.target\nAfter=basic.target\n' >>$units/multi-user.target
	ln -s multi-user.target $units/default.target # without it systemd exits, silently
	cp "$systemd/system/systemd-journald.socket" "$systemd/system/systemd-journald-dev-log.socket" $units
	cat >$units/systemd-journald.service <<-END
		[Unit]
		DefaultDependencies=no
		Requires=systemd-journald.socket
		After=systemd-journald.socket systemd-journald-dev-log.socket
		Before=sysinit.target
		[Service]
		Type=notify
		ExecStart=$systemd/systemd-journald
		Sockets=systemd-journald.socket systemd-journald-dev-log.socket
		Restart=always
		StandardOutput=null
	END
	: >/run/systemd-ns

	# Without the rights to do what would reach the host: its clock, modules and log.
	exec env -i container=systemd-ns TERM=dumb LANG=C.UTF-8 \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/systemd/system:/run/systemd/transient:$units \
		SYSTEMD_GENERATOR_PATH=/run/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none \
		setpriv --bounding-set -sys_time,-sys_module,-sys_rawio,-syslog,-audit_control,-audit_read,-wake_alarm \
		"$systemd/systemd" --system
}

# find_init prints the pid that the first process has outside.
find_init() {
	local pid
	while read -r pid; do
		if grep -qs '^NSpid:.*[[:space:]]1$' "/proc/$pid/status"; then
			echo "$pid"
			return
		fi
	done < <(cat "$cgroup/cgroup.procs" "$cgroup/init.scope/cgroup.procs" 2>/dev/null)
}

inside() { nsenter --target "$init" --mount --uts --ipc --net --pid --cgroup --wd="$PWD" -- "$@"; }

end() {
	# With its first process a pid namespace ends.
	[ -z "$init" ] || kill -KILL "$init" 2>/dev/null || true
	[ -z "$launcher" ] || kill -KILL "$launcher" 2>/dev/null || true
	wait 2>/dev/null || true
	local _
	for _ in $(seq 500); do
		find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
		[ -d "$cgroup" ] || break
		sleep 0.02
	done
	rm -f "$console"
}

run() {
	local mount parent="" ready="" status=0 _
	[ $# -gt 0 ] || die "run what?"
	[ "$(id -u)" = 0 ] || die "a systemd of one's own needs root: try sudo"
	[ -n "$systemd" ] || die "there is no systemd here: try $0 install"
	while read -r mount; do
		if [ -w "$mount/cgroup.procs" ]; then
			parent=$mount
			break
		fi
	done < <(awk '$3 == "cgroup2" {print $2}' /proc/mounts)
	[ -n "$parent" ] || die "no cgroup v2 is mounted for writing"

	init="" launcher=""
	export systemd cgroup=$parent/systemd-ns-$$ console
	console=$(mktemp)
	trap end EXIT
	trap 'exit 130' HUP INT QUIT TERM
	mkdir "$cgroup"
	setsid unshare --fork --kill-child --pid --mount --mount-proc --propagation private --uts --ipc --net \
		-- "$BASH" "$0" enter </dev/null >>"$console" 2>&1 &
	launcher=$!
	for _ in $(seq 6000); do
		kill -0 $launcher 2>/dev/null || break
		[ -n "$init" ] || init=$(find_init)
		if [ -n "$init" ] && [ -S "/proc/$init/root/run/systemd/private" ] &&
			inside systemctl is-active -q multi-user.target 2>/dev/null; then
			ready=yes
			break
		fi
		sleep 0.02
	done
	if [ -z "$ready" ]; then
		cat "$console" >&2
		die "systemd does not come up"
	fi
	# In the background, since bash heeds no signal while it waits for a command in
	# the foreground.
	inside "$@" &
	wait $! || status=$?
	exit $status
}

command=${1:-}
shift || true
case $command in
enter | boot) "$command" ;;
run)
	systemd=$(find_systemd)
	run "$@"
	;;
install)
	if [ -z "$(find_systemd)" ]; then
		apt-get -o Acquire::Retries=5 update -q
		DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=5 install -q -y --no-install-recommends systemd
	fi
	;;
*)
	sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
	exit 2
	;;
esac

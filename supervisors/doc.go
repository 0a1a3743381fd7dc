// Package supervisors shows with a real systemd that a service survives restarts,
// failures and stops under it, with the unit files of ../examples/systemd. It has
// tests only, in a module of its own. Those in keeppid are for a pid that never changes:
// under supervisord, under runit, and as the first process of a container.
//
//	sudo ./systemd-ns.sh install
//	sudo go test ./...
//
// The tests run themselves once more beside a systemd in namespaces of its own, which
// needs root. The machine's own systemd, if it has one, is left alone.
package supervisors

//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// debianPackages are the programs of others, and where Debian has them.
var debianPackages = map[string]string{"nginx": "nginx", "haproxy": "haproxy"}

// find returns the path of a program. If there is none it is installed, as far as this
// machine lets us.
func find(program string, progress io.Writer) (string, error) {
	if path := lookFor(program); path != "" {
		return path, nil
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return "", fmt.Errorf("%s is not installed, and there is no apt-get to install it", program)
	}
	if os.Getuid() != 0 {
		return "", fmt.Errorf("%s is not installed: run apt-get install %s, or this command as root", program, debianPackages[program])
	}
	fmt.Fprintf(progress, "installing %s\n", debianPackages[program])
	if err := install(apt, debianPackages[program]); err != nil {
		return "", fmt.Errorf("install %s: %w", program, err)
	}
	if path := lookFor(program); path != "" {
		return path, nil
	}
	return "", fmt.Errorf("%s was installed, and is not there", program)
}

// lookFor finds a program also where only root has them in PATH.
func lookFor(program string) string {
	for _, name := range []string{program, "/usr/sbin/" + program, "/usr/local/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// policy is asked by Debian's packages before they start a service.
const policy = "/usr/sbin/policy-rc.d"

// install installs a package of Debian without starting the service that it brings.
func install(apt, name string) error {
	const never = "#!/bin/sh\nexit 101\n"
	f, err := os.OpenFile(policy, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	switch {
	case errors.Is(err, os.ErrExist): // whoever has written it knows better
	case err != nil:
		return fmt.Errorf("keep the service from being started: %w", err)
	default:
		defer os.Remove(policy)
		_, err := f.WriteString(never)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("keep the service from being started: %w", err)
		}
	}
	for _, args := range [][]string{{"update", "-q"}, {"install", "-q", "-y", "--no-install-recommends", name}} {
		cmd := exec.Command(apt, args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out)
		}
	}
	return nil
}

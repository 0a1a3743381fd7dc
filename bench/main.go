//go:build linux

// Command bench measures what restarts cost: with this library, with net/http alone,
// written by hand, with nginx and HAProxy, and with any other server. All of them run side
// by side and take turns, so that their figures can be compared.
//
//	go run . [-quick] [-smoke] [-only MEASURE,...] [-peer NAME=PATH:SIGNAL ...] [-json FILE] [-svg FILE]
//
// It exits with 1 if this library has lost a request, or could not be measured; with 2 for
// flags that it does not understand; with 130 if a signal has ended it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
)

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2)
	}
	code, err := run(o, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
	}
	os.Exit(code)
}

// Package clients shows with real clients that none of them notices a restart:
// with the libraries that programs use, and with the tools that people use. It has
// tests only, in a module of its own, so that the library depends on none of them.
//
//	go test .
//	GRACE_LONG=1 go test -timeout 20m .
//
// The second command makes 50 restarts where the first one makes a few. The tools
// are curl, openssl, wrk, h2load and Chromium; a test fails if one is missing.
package clients

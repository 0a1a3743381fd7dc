//go:build unix

package gracetest

import (
	"os"
	"path/filepath"
)

// badProgram is what nobody should deploy.
type badProgram struct {
	name  string
	write func(path, good string) error // nil: there is no such file
	stays bool                          // it never ends
}

func script(text string) func(path, good string) error {
	return func(path, _ string) error { return os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755) }
}

var badPrograms = []badProgram{
	{name: "missing"},
	{name: "not-executable", write: func(path, _ string) error { return os.WriteFile(path, []byte("#!/bin/sh\n"), 0o644) }},
	{name: "empty", write: func(path, _ string) error { return os.WriteFile(path, nil, 0o755) }},
	{name: "rubbish", write: func(path, _ string) error { return os.WriteFile(path, []byte("\x00\xff rubbish"), 0o755) }},
	{name: "directory", write: func(path, _ string) error { return os.Mkdir(path, 0o755) }},
	{name: "truncated", write: truncated},
	{name: "exits-0", write: script("exit 0")},
	{name: "exits-1", write: script("exit 1")},
	{name: "kills-itself", write: script("kill -9 $$")},
	{name: "hangs", write: script("exec sleep 1000"), stays: true},
}

// truncated is what a deploy leaves that has run out of disk.
func truncated(path, good string) error {
	b, err := os.ReadFile(good)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b[:len(b)/2], 0o755)
}

// make writes the program to dir and returns its path.
func (p badProgram) make(t TB, dir, good string) string {
	t.Helper()
	path := filepath.Join(dir, p.name)
	if p.write != nil {
		if err := p.write(path, good); err != nil {
			t.Fatalf("make a bad program: %v", err)
		}
	}
	return path
}

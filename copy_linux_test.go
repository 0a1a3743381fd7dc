package grace_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/facebookgo/grace"
)

// forbidRead makes read(2) of fd fail with EPERM in this thread, for good.
func forbidRead(fd int) error {
	const argument0 = 16 // in struct seccomp_data
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_READ, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: argument0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(fd), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

// copyUnread calls f, in a thread that can't read from src.
func copyUnread(t *testing.T, src any, f func() (int64, error)) (n int64, err error) {
	t.Helper()
	fd := -1
	withFD(t, src, func(n int) { fd = n })
	waitFor(t, "the copy hangs", async(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if err = forbidRead(fd); err == nil {
			n, err = f()
		}
	}))
	return n, err
}

// Between connections and files the kernel copies, with splice(2) and sendfile(2),
// as for connections of package net: it works where the process can't read.
func TestKernelCopies(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	// of returns an end of a copy, and what is at the other end of it.
	of := func(t *testing.T, kind string) (end, peer any) {
		switch kind {
		case "file":
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = f.Close() })
			return f, nil
		case "bare tcp", "bare unix":
			client, server := connect(t, listenOn(t, kind[len("bare "):]))
			return server, client
		}
		client, server := accepted(t, grace.NewListener(listenOn(t, kind)))
		return server, client
	}
	run := func(t *testing.T, from, to string, do func(io.Writer, io.Reader) (int64, error)) error {
		src, sender := of(t, from)
		if sender, ok := sender.(net.Conn); ok {
			sent := async(func() {
				_, _ = sender.Write(data)
				_ = sender.Close()
			})
			defer func() { _ = sender.Close(); <-sent }()
		}
		var dst, receiver any
		if to == "file" {
			f, err := os.Create(filepath.Join(t.TempDir(), "copy"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			dst, receiver = f, io.NewSectionReader(f, 0, int64(len(data))+1)
		} else {
			dst, receiver = of(t, to)
		}
		var got []byte
		read := func() { got, _ = io.ReadAll(receiver.(io.Reader)) }
		var received <-chan struct{}
		if to != "file" {
			received = async(read)
		}
		_, err := copyUnread(t, src, func() (int64, error) { return do(dst.(io.Writer), src.(io.Reader)) })
		if to == "file" {
			read()
		} else {
			_ = dst.(net.Conn).Close()
			waitFor(t, "the receiver does not come to the end", received)
		}
		if err == nil && !bytes.Equal(got, data) {
			t.Errorf("%d bytes have arrived, want %d", len(got), len(data))
		}
		return err
	}
	for _, test := range []struct{ from, to string }{
		{"tcp", "tcp"}, {"tcp", "unix"}, {"unix", "tcp"},
		{"tcp", "bare tcp"}, {"tcp", "bare unix"}, {"bare tcp", "tcp"}, {"bare unix", "tcp"},
		{"file", "tcp"}, {"file", "unix"}, {"tcp", "file"}, {"unix", "file"},
	} {
		t.Run(test.from+" to "+test.to, func(t *testing.T) {
			if err := run(t, test.from, test.to, io.Copy); err != nil {
				t.Errorf("io.Copy: %v", err)
			}
		})
	}
	for _, test := range []struct{ from, to string }{{"tcp", "tcp"}, {"unix", "tcp"}, {"file", "tcp"}} {
		t.Run("N bytes, "+test.from+" to "+test.to, func(t *testing.T) {
			err := run(t, test.from, test.to, func(w io.Writer, r io.Reader) (int64, error) {
				limited := &io.LimitedReader{R: r, N: int64(len(data)) + 1}
				n, err := io.Copy(w, limited)
				if limited.N != 1 {
					t.Errorf("%d bytes are left of the limit, want 1", limited.N)
				}
				return n, err
			})
			if err != nil {
				t.Errorf("io.Copy: %v", err)
			}
		})
	}
	// That this shows something: a copy by the process does not work.
	for _, from := range []string{"tcp", "file"} {
		err := run(t, from, "tcp", func(w io.Writer, r io.Reader) (int64, error) {
			return io.Copy(struct{ io.Writer }{w}, struct{ io.Reader }{r})
		})
		if !errors.Is(err, syscall.EPERM) {
			t.Errorf("a copy from %s that must read: %v, want EPERM", from, err)
		}
	}
}

package gracehttp_test

import (
	"log"
	"net/http"
	"reflect"
	"testing"

	"github.com/facebookgo/grace/gracehttp"
)

// Programs written for facebookgo/grace must compile against this package: each
// name and type of its API, as the compiler sees them.
var (
	_ func(...*http.Server) error = gracehttp.Serve
	_ func(*log.Logger)           = gracehttp.SetLogger

	_ = []any{gracehttp.PreStartProcess(func() error { return nil })}

	// The type of an option has no name outside, but it is one type.
	_ = isOption(gracehttp.ServeWithOptions, gracehttp.PreStartProcess)
)

func isOption[O any](func([]*http.Server, ...O) error, func(func() error) O) bool { return true }

func TestOptionType(t *testing.T) {
	option := reflect.TypeOf(gracehttp.PreStartProcess).Out(0)
	if name := option.Name(); name != "option" {
		t.Errorf("PreStartProcess returns %q, want option", name)
	}
	if arg := reflect.TypeOf(gracehttp.ServeWithOptions).In(1).Elem(); arg != option {
		t.Errorf("ServeWithOptions takes %v, want %v", arg, option)
	}
}

// Without servers there is nothing to wait for.
func TestServeWithoutServers(t *testing.T) {
	gracehttp.SetLogger(nil)
	hook := gracehttp.PreStartProcess(func() error { panic("no process is started") })
	for name, err := range map[string]error{
		"Serve":                         gracehttp.Serve(),
		"ServeWithOptions":              gracehttp.ServeWithOptions(nil),
		"ServeWithOptions with options": gracehttp.ServeWithOptions([]*http.Server{}, hook, hook),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

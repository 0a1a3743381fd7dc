//go:build linux

package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// options are what the flags say.
type options struct {
	plan  plan
	only  []string
	peers peers
	json  string
	svg   string
}

// parse reads the flags. What is wrong with them it has said already.
func parse(args []string, out io.Writer) (options, error) {
	o := options{plan: full}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(out)
	isQuick := flags.Bool("quick", false, "take less than two minutes, instead of fifteen")
	isSmoke := flags.Bool("smoke", false, "only see that nothing is lost, in less than 40 seconds")
	only := flags.String("only", "", "the `measures` to make, with commas between them: "+strings.Join(measureNames(), ",")+" (default all)")
	flags.Var(&o.peers, "peer", "another server, as `name=path:SIGNAL`: it is started as \"path ADDR\", answers /pid, and is restarted by the signal")
	flags.StringVar(&o.json, "json", "", "`file` for the figures, one JSON object a line")
	flags.StringVar(&o.svg, "svg", "", "`file` for the chart")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	wrong := func(format string, args ...any) error {
		err := fmt.Errorf(format, args...)
		fmt.Fprintf(out, "bench: %v\n", err)
		return err
	}
	if flags.NArg() > 0 {
		return o, wrong("it takes flags only, not %q: see -help", flags.Arg(0))
	}
	switch {
	case *isQuick && *isSmoke:
		return o, wrong("choose -quick or -smoke")
	case *isQuick:
		o.plan = quick
	case *isSmoke:
		o.plan = smoke
	}
	if o.json != "" && o.json == o.svg {
		return o, wrong("-json and -svg: choose two files")
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, name := range o.only {
		if !slices.Contains(measureNames(), name) {
			return o, wrong("-only: there is no measure %q: choose from %s", name, strings.Join(measureNames(), ", "))
		}
	}
	return o, nil
}

func measureNames() []string {
	var names []string
	for _, m := range measures {
		names = append(names, m.name)
	}
	return names
}

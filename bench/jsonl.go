//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
)

// writeJSON writes a line for each figure.
func writeJSON(w io.Writer, figures []figure) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, f := range figures {
		if err := e.Encode(f); err != nil {
			return fmt.Errorf("write a figure: %w", err)
		}
	}
	return nil
}

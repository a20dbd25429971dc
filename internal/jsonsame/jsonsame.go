// Package jsonsame compares JSON by what it means: numbers by value, objects without regard to order.
package jsonsame

import (
	"bytes"
	"encoding/json"
	"io"
	"math/big"
	"slices"
	"strings"
)

// Texts reports whether two texts are the same JSON value. What is no JSON value is like nothing else. Empty counts as null.
func Texts(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, okX := decode(a)
	y, okY := decode(b)
	return okX && okY && Values(x, y)
}

func decode(text []byte) (value any, ok bool) {
	if len(text) == 0 {
		return nil, true
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&value); err != nil {
		return nil, false
	}
	_, err := dec.Token()
	return value, err == io.EOF
}

// Values compares decoded JSON, whose numbers are [json.Number].
func Values(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && sameNumber(a, b)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, Values)
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for key, value := range a {
			other, there := b[key]
			if !there || !Values(value, other) {
				return false
			}
		}
		return true
	case string:
		b, ok := b.(string)
		return ok && a == b
	case bool:
		b, ok := b.(bool)
		return ok && a == b
	default:
		return a == nil && b == nil
	}
}

// Numbers with more digits, of their exponent or in all, are compared as text: 1e1000000000 has no business in a memory's metadata, nor here in memory.
const (
	maxExponent = 3
	maxDigits   = 400
)

func sameNumber(a, b json.Number) bool {
	if a == b {
		return true
	}
	for _, n := range []json.Number{a, b} {
		if _, exponent, ok := strings.Cut(strings.ToLower(n.String()), "e"); len(n) > maxDigits || ok && len(strings.TrimLeft(exponent, "+-0")) > maxExponent {
			return false
		}
	}
	x, okX := new(big.Rat).SetString(a.String())
	y, okY := new(big.Rat).SetString(b.String())
	return okX && okY && x.Cmp(y) == 0
}

package peer_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/peer"
)

// oracleMembers reads an answer with the decoder of encoding/json, token by token.
func oracleMembers(text []byte) (map[string]string, bool) {
	found := map[string]string{}
	decoder := json.NewDecoder(bytes.NewReader(text))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return map[string]string{}, false
	}
	for decoder.More() {
		token, err := decoder.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return map[string]string{}, false
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return map[string]string{}, false
		}
		switch name {
		case "ids", "quota_refused", "unsupported_on_postgres", "skipped", "dry_run":
			if _, twice := found[name]; twice {
				return map[string]string{}, false
			}
			found[name] = string(value)
		}
	}
	if _, err := decoder.Token(); err != nil {
		return map[string]string{}, false
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return map[string]string{}, false
	}
	return found, true
}

// FuzzMembers compares the reader of answers with the oracle.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{
		"", " ", "{", "{}", " {\n} ", "[]", "null", `"x"`, "{}{}", okAnswer,
		`{"skipped":1,"skipped":0}`, `{"SKIPPED":1}`, `{"\u0073kipped":3}`, `{"skipped":1,"\u0073kipped":0}`,
		`{"a":{"skipped":5,"b":["]}\\\"",{}]},"skipped" : -1.5e3 , "ids":["a","b"],"dry_run":true}`,
		`{"a":"}\\","skipped":"x\"y"}`, `{"":0}`, `{"a":[[],[{}]],"quota_refused":7}`, "{\"skipped\":\t2\r\n}", "\ufeff{}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		want, wantOK := oracleMembers(text)
		got, ok := peer.Members(text)
		if ok != wantOK {
			t.Fatalf("%q: got %t, want %t", text, ok, wantOK)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	})
}

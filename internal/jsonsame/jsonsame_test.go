package jsonsame_test

import (
	"testing"

	"quorumbox/internal/jsonsame"
)

func TestTexts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{`{"a":1,"b":[true,null,"x"]}`, ` { "b" : [ true , null , "\u0078" ] , "a" : 1.0 } `, true},
		{`1e2`, `100`, true},
		{`0.1`, `0.10000000000000001`, false},
		{`1e999999999`, `1e999999999`, true},
		{`1e999999999`, `10e999999998`, false}, // equal, and too large to find out
		{`null`, ``, true},
		{``, ``, true},
		{`null`, `false`, false},
		{`"1"`, `1`, false},
		{`[1,2]`, `[2,1]`, false},
		{`{"a":null}`, `{"b":null}`, false},
		{`{"a":1}`, `{"a":1,"b":2}`, false},
		{`true`, `"true"`, false},
		{`{`, `{}`, false},
		{`{} {}`, `{}`, false},
	} {
		if got := jsonsame.Texts([]byte(tt.a), []byte(tt.b)); got != tt.same {
			t.Errorf("%s and %s: got %t, want %t", tt.a, tt.b, got, tt.same)
		}
		if got := jsonsame.Texts([]byte(tt.b), []byte(tt.a)); got != tt.same {
			t.Errorf("%s and %s: got %t, want %t", tt.b, tt.a, got, tt.same)
		}
	}
}

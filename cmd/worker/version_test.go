package main

import (
	"strings"
	"testing"
)

// A build may be told its version, as that of the image is; without that it says what Go recorded.
func TestVersion(t *testing.T) {
	t.Parallel()
	if got := versionText(build("v1.2.3-test")); !strings.HasPrefix(got, "quorumbox v1.2.3-test, go") {
		t.Errorf("got %q, want the version that was given", got)
	}
	if got := versionText(build("")); !strings.HasPrefix(got, "quorumbox ") || strings.Contains(got, "v1.2.3-test") {
		t.Errorf("got %q, want what Go recorded", got)
	}
}

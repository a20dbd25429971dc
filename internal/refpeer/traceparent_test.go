package refpeer_test

import (
	"net/http"
	"strings"
	"testing"

	"quorumbox/internal/refpeer"
)

// The header changes nothing for the peer; the log has what came of it, as far as it has room.
func TestTraceparentIsLogged(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for i, tt := range []struct{ header, want string }{
		{"", ""},
		{traceparent, traceparent},
		{"nonsense", "nonsense"},
		{strings.Repeat("x", 500), strings.Repeat("x", 128)},
	} {
		request := pushRequest(t.Context(), pushBody(t, []string{memoryJSON(t, nil)}))
		if tt.header != "" {
			request.Header.Set("Traceparent", tt.header)
		}
		if a := serve(peer.Handler(), request); a.status != http.StatusOK {
			t.Fatalf("%q: got %d, want 200", tt.header, a.status)
		}
		if got := entries(t, peer)[i].Traceparent; got != tt.want {
			t.Errorf("%.60q: got %.60q in the log", tt.header, got)
		}
	}
}

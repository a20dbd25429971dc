package integration

import (
	"fmt"
	"strings"

	"quorumbox/internal/peer"
)

// oddAnswer is one way in which a peer answers, or does not.
type oddAnswer struct {
	name   string
	faults string // JSON; empty: the peer is killed and started again
	mode   string // what the peer counts the fault as

	// classes are those that the worker gives the answers; every one of them must occur, and no other but ok.
	classes []peer.Class
	// refused are the entries that the peer refuses for good: by their place in what is written, see [fleet.oddWrite].
	refused []int
	// heals: the fault ends by itself.
	heals bool
}

// oddAnswers has every fault of the reference peer. The memories of answer i are odd-i-0 and following.
func oddAnswers() []oddAnswer {
	const always = "" // no condition
	status := func(code int, class peer.Class, more string) oddAnswer {
		return oddAnswer{
			name: fmt.Sprint("status ", code), faults: fmt.Sprintf(`{"status":%d%s}`, code, more), mode: "status", classes: []peer.Class{class},
		}
	}
	named := func(a oddAnswer, name string) oddAnswer { a.name = name; return a }
	wait := func(a oddAnswer) oddAnswer { a.heals = true; return a }
	list := []oddAnswer{
		status(301, peer.ClassRedirect, always),
		status(307, peer.ClassRedirect, `,"location":"http://127.0.0.1:9/"`),
		status(400, peer.ClassBadRequest, always),
		status(401, peer.ClassUnauthorized, always),
		named(status(401, peer.ClassNonceReplay, `,"error":"x_memory_nonce_replay"`), "status 401, nonce seen before"),
		status(403, peer.ClassForbidden, always),
		status(404, peer.ClassNotFound, always),
		status(405, peer.ClassNotFound, always),
		status(409, peer.ClassConflict, always),
		status(413, peer.ClassTooLarge, always),
		status(418, peer.ClassHTTPOther, always),
		named(status(429, peer.ClassRateLimited, `,"retry_after":"1"`), "status 429, Retry-After"),
		status(500, peer.ClassServerError, always),
		status(502, peer.ClassServerError, always),
		named(status(503, peer.ClassUnavailable, `,"retry_after":"1"`), "status 503, Retry-After"),
		status(504, peer.ClassServerTimeout, always),
		named(wait(oddAnswer{faults: `{"mode":"quota","reset_in":"1s"}`, mode: "quota", classes: []peer.Class{peer.ClassQuota}}), "429, quota, reset"),
		named(wait(oddAnswer{faults: `{"mode":"quota","after":2,"reset_in":"1s"}`, mode: "quota", classes: []peer.Class{peer.ClassQuota}}),
			"429, quota, after 2 of 3"),
	}
	return append(list, []oddAnswer{
		{name: "400 for one id", faults: `{"status":400,"id":"%s"}`, mode: "status", classes: []peer.Class{peer.ClassBadRequest}, refused: []int{1}},
		{name: "500 for one id", faults: `{"status":500,"id":"%s"}`, mode: "status", classes: []peer.Class{peer.ClassServerError}, refused: []int{1}},
		{name: "413 above 1 item", faults: `{"status":413,"above_items":1}`, mode: "status", classes: []peer.Class{peer.ClassTooLarge}},
		{name: "one id skipped", faults: `{"mode":"refuse_id","id":"%s"}`, mode: "refuse_id", classes: []peer.Class{peer.ClassSkipped}, refused: []int{1}},
		{name: "one item skipped, once", faults: `{"skipped":1,"count":1}`, mode: "skipped", classes: []peer.Class{peer.ClassSkipped}},
		{name: "every first item skipped", faults: `{"skipped":1}`, mode: "skipped", classes: []peer.Class{peer.ClassSkipped}, refused: []int{0, 1, 2, 3}},
		{
			name: "deletions unsupported", faults: `{"unsupported":1000,"list":"deletions"}`, mode: "unsupported",
			classes: []peer.Class{peer.ClassUnsupported}, refused: []int{3},
		},
		{name: "other ids", faults: `{"mode":"drift"}`, mode: "drift", classes: []peer.Class{peer.ClassIDDrift}},
		{name: "right ids", faults: `{"mode":"ids"}`, mode: "ids"},
		{name: "unknown fields", faults: `{"mode":"extra"}`, mode: "extra"},
		{name: "page that is no JSON", faults: `{"mode":"garbage"}`, mode: "garbage", classes: []peer.Class{peer.ClassMalformedAnswer}},
		{name: "truncated JSON", faults: `{"mode":"truncated"}`, mode: "truncated", classes: []peer.Class{peer.ClassMalformedAnswer}},
		{name: "compressed", faults: `{"mode":"gzip"}`, mode: "gzip", classes: []peer.Class{peer.ClassMalformedAnswer}},
		{name: "dry run", faults: `{"mode":"dry_run"}`, mode: "dry_run", classes: []peer.Class{peer.ClassMalformedAnswer}},
		{name: "late, in time", faults: `{"mode":"slow","delay":"100ms"}`, mode: "slow"},
		{name: "late, too late", faults: `{"mode":"slow","delay":"1500ms","count":1}`, mode: "slow", classes: []peer.Class{peer.ClassTimeout}},
		{name: "applied, too late", faults: `{"mode":"zombie","delay":"1500ms","count":1}`, mode: "zombie", classes: []peer.Class{peer.ClassTimeout}},
		{name: "no answer", faults: `{"mode":"hang","count":1}`, mode: "hang", classes: []peer.Class{peer.ClassTimeout}},
		{name: "applied, answer lost", faults: `{"mode":"lose_answer"}`, mode: "lose_answer", classes: []peer.Class{peer.ClassConnectionLost}},
		{name: "connection cut", faults: `{"mode":"down"}`, mode: "down", classes: []peer.Class{peer.ClassConnectionLost}},
		{name: "nothing listens", classes: []peer.Class{peer.ClassRefusedConnection}},
	}...)
}

// lags reports whether the answer keeps the peer behind as long as it is given.
func (a oddAnswer) lags() bool {
	return len(a.classes) > 0 && len(a.refused) == 0 && !strings.Contains(a.faults, `"count"`) && !strings.Contains(a.faults, `"above_items"`)
}

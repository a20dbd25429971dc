package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/peer"
	"quorumbox/outbox"
)

var wide = limits{items: 1000, bytes: 1 << 20} //nolint:gochecknoglobals // a constant of the tests

// picky is a peer that refuses some ids, in the way that answer says.
type picky struct {
	refuses []string
	answer  func(refused, items int) *peer.Error
	deaf    bool // it refuses everything, also a push of nothing
	pushes  []string
}

func (p *picky) Push(_ context.Context, _ string, req peer.Request) (peer.Report, error) {
	return peer.Report{Attempts: 1}, p.push(req)
}

func (p *picky) push(req peer.Request) error {
	var body struct {
		Memories  []struct{ ID string }
		Deletions []string
		Archives  []string
		Links     []struct {
			Source string `json:"source_id"`
		}
	}
	if err := json.Unmarshal(req.Body, &body); err != nil {
		return err
	}
	var ids []string
	for _, m := range body.Memories {
		ids = append(ids, m.ID)
	}
	for _, l := range body.Links {
		ids = append(ids, l.Source)
	}
	ids = append(append(ids, body.Deletions...), body.Archives...)
	p.pushes = append(p.pushes, strings.Join(ids, " "))
	refused := 0
	for _, id := range ids {
		if slices.Contains(p.refuses, id) {
			refused++
		}
	}
	if refused > 0 || p.deaf {
		return p.answer(refused, len(ids))
	}
	return nil
}

func skipped(refused, _ int) *peer.Error {
	return &peer.Error{Class: peer.ClassSkipped, Status: 200, Refused: refused}
}
func badRequest(int, int) *peer.Error { return &peer.Error{Class: peer.ClassBadRequest, Status: 400} }
func tooLarge(int, int) *peer.Error   { return &peer.Error{Class: peer.ClassTooLarge, Status: 413} }
func unsupported(refused, _ int) *peer.Error {
	return &peer.Error{Class: peer.ClassUnsupported, Status: 200, Refused: refused}
}

// oneBatch is a batch of entries, numbered from 1.
func oneBatch(entries ...entry) batch {
	b := batch{Number: 1}
	for i, e := range entries {
		e.ID = int64(i + 1)
		b.IDs = append(b.IDs, e.ID)
		b.Entries = append(b.Entries, e)
	}
	return b
}

func stores(ids ...string) []entry {
	list := make([]entry, len(ids))
	for i, id := range ids {
		list[i] = storeOf(id, "n", "title of "+id)
	}
	return list
}

// A push that is refused is cut in halves until it is known which entries the peer refuses; the others arrive.
func TestSendIsolatesWhatIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		entries []entry
		refuses []string
		answer  func(refused, items int) *peer.Error
		want    []refusal
		pushes  []string // ids of each, in their order
	}{
		"one alone": {
			stores("a"),
			[]string{"a"},
			skipped,
			[]refusal{{1, 0, peer.ClassSkipped}},
			[]string{"a"},
		},
		"one of four": {
			stores("a", "b", "c", "d"),
			[]string{"c"},
			skipped,
			[]refusal{{3, 0, peer.ClassSkipped}},
			[]string{"a b c d", "a b", "c d", "c", "d"},
		},
		"two of four": {
			stores("a", "b", "c", "d"),
			[]string{"a", "d"},
			skipped,
			[]refusal{{1, 0, peer.ClassSkipped}, {4, 0, peer.ClassSkipped}},
			[]string{"a b c d", "a b", "a", "b", "c d", "c", "d"},
		},
		"all, and the answer says so": {
			stores("a", "b", "c"),
			[]string{"a", "b", "c"},
			skipped,
			[]refusal{{1, 0, peer.ClassSkipped}, {2, 0, peer.ClassSkipped}, {3, 0, peer.ClassSkipped}},
			[]string{"a b c"},
		},
		"a poisoned push, once the peer has taken an empty one": {
			stores("a", "b"),
			[]string{"b"},
			badRequest,
			[]refusal{{2, 0, peer.ClassBadRequest}},
			[]string{"a b", "", "a", "b"},
		},
		"one that is too large": {
			stores("a", "b"),
			[]string{"a"},
			tooLarge,
			[]refusal{{1, 0, peer.ClassTooLarge}},
			[]string{"a b", "", "a", "b"},
		},
		"what a Postgres-backed peer does not know, and the answer says so": {
			append(stores("a"), entry{Kind: outbox.KindArchive, Key: "x", Namespace: "n", Payload: []byte(`{"title":"X"}`)}),
			[]string{"x"},
			unsupported,
			[]refusal{{2, 0, peer.ClassUnsupported}},
			[]string{"a x"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &picky{refuses: c.refuses, answer: c.answer}
			d := pack([]batch{oneBatch(c.entries...)}, nil, "ai:leader", wide).send(t.Context(), p, "a", isolation{parts: p, until: time.Now().Add(time.Hour)})
			if d.err != nil {
				t.Errorf("got %v, want the rest acknowledged", d.err)
			}
			if diff := cmp.Diff(c.want, d.refused); diff != "" {
				t.Errorf("refused (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.pushes, p.pushes); diff != "" {
				t.Errorf("pushes (-want +got):\n%s", diff)
			}
		})
	}
}

// A peer that refuses an empty push, too, refuses the sender: no entry is blamed.
func TestSendBlamesNobodyForAPeerThatRefusesEverything(t *testing.T) {
	t.Parallel()
	p := &picky{answer: badRequest, deaf: true}
	d := pack([]batch{oneBatch(stores("a", "b")...)}, nil, "ai:leader", wide).send(t.Context(), p, "a", isolation{parts: p, until: time.Now().Add(time.Hour)})
	if peer.ClassOf(d.err) != peer.ClassBadRequest || len(d.refused) > 0 {
		t.Errorf("got %v, refused %v, want the peer's 400 and nobody refused", d.err, d.refused)
	}
	if diff := cmp.Diff([]string{"a b", ""}, p.pushes); diff != "" {
		t.Errorf("pushes (-want +got):\n%s", diff)
	}
}

func TestSendIsPatientWithALink(t *testing.T) {
	t.Parallel()
	l := entry{Kind: outbox.KindLink, Key: "ab", Namespace: "n", Payload: []byte(`{"source_id":"a","target_id":"b","relation":"related_to"}`)}
	for _, patient := range []bool{true, false} {
		p := &picky{refuses: []string{"a"}, answer: skipped}
		d := pack([]batch{oneBatch(l)}, nil, "ai:leader", wide).send(t.Context(), p, "a", isolation{parts: p, until: time.Now().Add(time.Hour), patient: patient})
		if patient && (peer.ClassOf(d.err) != peer.ClassSkipped || len(d.refused) > 0) {
			t.Errorf("got %v, refused %v, want it to fail for now", d.err, d.refused)
		}
		if !patient && (d.err != nil || len(d.refused) != 1) {
			t.Errorf("got %v, refused %v, want it refused", d.err, d.refused)
		}
	}
}

func TestSendTellsWhatItFoundInTime(t *testing.T) {
	t.Parallel()
	p := &picky{refuses: []string{"a"}, answer: skipped}
	d := pack([]batch{oneBatch(stores("a", "b")...)}, nil, "ai:leader", wide).send(t.Context(), p, "a", isolation{parts: p, until: time.Now().Add(-time.Second)})
	if peer.ClassOf(d.err) != peer.ClassSkipped || len(d.refused) > 0 || len(p.pushes) != 1 {
		t.Errorf("got %v, refused %v after %d pushes, want the first answer and no more", d.err, d.refused, len(p.pushes))
	}
}

func TestSendLeavesRefusedEntriesOut(t *testing.T) {
	t.Parallel()
	p := &picky{refuses: []string{"b"}, answer: skipped}
	d := pack([]batch{oneBatch(stores("a", "b", "c")...)}, map[int64]bool{2: true}, "ai:leader", wide).send(t.Context(), p, "a", isolation{parts: p})
	if d.err != nil || len(d.refused) > 0 || !slices.Equal(p.pushes, []string{"a c"}) {
		t.Errorf("got %v, refused %v, pushes %q", d.err, d.refused, p.pushes)
	}
}

// A quota lets the first memories of a push pass. The peer has them, and asking for them again would cost the quota again.
func TestSendCountsWhatAQuotaLetPass(t *testing.T) {
	t.Parallel()
	quota := func(applied int) PushFunc {
		return func(context.Context, string, peer.Request) (peer.Report, error) {
			return peer.Report{Attempts: 1}, &peer.Error{Class: peer.ClassQuota, Status: 429, Applied: applied}
		}
	}
	batches := []batch{oneBatch(stores("a", "b")...), oneBatch(stores("c")...), oneBatch(stores("d", "e")...)}
	for applied, want := range map[int]int{0: 0, 1: 0, 2: 1, 3: 2, 4: 2, 5: 2, 1000: 2} {
		d := pack(batches, nil, "ai:leader", wide).send(t.Context(), quota(applied), "a", isolation{})
		if got := len(d.has()); got != want || peer.ClassOf(d.err) != peer.ClassQuota {
			t.Errorf("%d applied: got %d batches and %v, want %d", applied, got, d.err, want)
		}
	}
	mixed := []batch{oneBatch(append(stores("a"), deleteOf("b", "B"))...), oneBatch(stores("c")...)}
	d := pack(mixed, nil, "ai:leader", wide).send(t.Context(), quota(2), "a", isolation{})
	if got := d.has(); got != nil {
		t.Errorf("a mixed push: got %d batches, want none: what a quota stops there is not a prefix of the log", len(got))
	}
}

// What a decision makes the receiver delete is for the push builder: it is not sent, and what the memory had before is not sent again.
func TestDecisionTravelsWithItsThreeFields(t *testing.T) {
	t.Parallel()
	decision := entry{
		Kind: outbox.KindDecision, Key: "p", Namespace: "n", Payload: []byte(`{"id": "p", "approved": true, "decider": "ai:x", "deletes": "a"}`),
	}
	s := pack([]batch{oneBatch(decision)}, nil, "ai:leader", wide)
	want := `{"dry_run":false,"memories":[],"pending_decisions":[{"approved":true,"decider":"ai:x","id":"p"}],"sender_agent_id":"ai:leader"}`
	if got := string(s.pushes[0].req.Body); len(s.pushes) != 1 || got != want || s.pushes[0].req.IdempotencyKey != "p" {
		t.Errorf("got %d pushes, key %q, body\n%s, want\n%s", len(s.pushes), s.pushes[0].req.IdempotencyKey, got, want)
	}
	s = pack([]batch{oneBatch(stores("a")[0], decision)}, nil, "ai:leader", wide)
	if got := string(s.pushes[0].req.Body); len(s.pushes) != 1 || strings.Contains(got, "title of a") {
		t.Errorf("with its store: got %d pushes, the first\n%s, want the decision alone", len(s.pushes), got)
	}
}

func TestMessageShipsTheLastVectorOfAMemory(t *testing.T) {
	t.Parallel()
	e := func(id, vector string) entry {
		x := storeOf(id, "n", id)
		if vector != "" {
			x.Embedding = fmt.Appendf(nil, `{"memory_id":%q,"model":"m","dim":1,"vector":[%s]}`, id, vector)
		}
		return x
	}
	for name, c := range map[string]struct {
		entries []entry
		want    []string
	}{
		"alone":                            {[]entry{e("a", "1")}, []string{e("a", "1").vector()}},
		"none":                             {[]entry{e("a", "")}, nil},
		"two":                              {[]entry{e("a", "1"), e("b", "2")}, []string{e("a", "1").vector(), e("b", "2").vector()}},
		"an update's":                      {[]entry{e("a", "1"), e("a", "2")}, []string{e("a", "2").vector()}},
		"none for an update that has none": {[]entry{e("a", "1"), e("a", "")}, nil},
	} {
		pushes := plan(c.entries, wide)
		var got []string
		for _, v := range message(pushes[0]).Embeddings {
			got = append(got, string(v))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: vectors (-want +got):\n%s", name, diff)
		}
	}
}

func (e entry) vector() string { return string(e.Embedding) }

package jobs

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"quorumbox/internal/peer"
	"quorumbox/quorum"
)

// What operators of such meshes watch: the log lines and counters of the reference sender (wire.md 9), for entries of all kinds.

// partialEvery is how often it is logged that the same peers miss what a quorum has. It is counted each time.
const partialEvery = 10 * time.Second

// announce logs what is about to be pushed: a line for each fan-out, which names its first entry, because under load a fan-out has hundreds.
func (f *fanOut) announce(ctx context.Context) {
	first, entries := f.batches[0], 0
	for _, b := range f.batches {
		entries += len(b.Entries)
	}
	f.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "federation::broadcast",
		slog.String("kind", string(first.Entries[0].Kind)), slog.String("memory_id", first.Entries[0].Key),
		slog.String("namespace", first.namespace()), slog.Int("entries", entries), slog.Int("batches", len(f.batches)),
		slog.Int("peer_count", len(f.cfg.Peers)), slog.Int("quorum_w", f.trackers[0].Policy().W))
}

// count counts a verdict.
func (f *fanOut) count(b batch, verdict quorum.Verdict, reason quorum.Reason) {
	age := b.Age + time.Since(f.start)
	f.cfg.Metrics.Decided(len(b.IDs), age)
	for _, e := range b.Entries {
		f.cfg.Metrics.EntryDecided(string(verdict), e.Waited, age)
	}
	f.cfg.Metrics.QuorumAck(string(verdict))
	if verdict != quorum.VerdictMet {
		f.cfg.Metrics.QuorumFailure(string(reason))
	}
}

// tellResults logs how the pushes of a recorded part of the fan-out ended. After the verdict, an acknowledgement is a detail and anything else is
// an acknowledgement that was dropped.
func (f *fanOut) tellResults(ctx context.Context, peers []string, late bool) {
	for _, p := range peers {
		l := f.legs[p]
		told := false
		for _, r := range l.results {
			if !r.ours {
				continue
			}
			f.cfg.tellRefusals(ctx, p, r.refused)
			if told {
				continue
			}
			told = true // the lanes of a peer share their pushes
			b := f.batches[r.ballot]
			attrs := []slog.Attr{
				slog.String("peer", p), slog.String("memory_id", b.Entries[0].Key), slog.Int("lane", int(b.Lane)), slog.Int64("batch", b.Number),
			}
			switch {
			case r.err == nil && late:
				f.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "peer acknowledged after the verdict", attrs...)
			case r.err != nil:
				attrs = append(attrs, slog.String("class", string(peer.ClassOf(r.err))), slog.String("reason", r.err.Error()),
					slog.String("hint", peer.ClassOf(r.err).Hint()))
				f.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "peer did not acknowledge", attrs...)
				if late {
					f.cfg.Metrics.Dropped(dropReason(ctx, r.err))
				}
			}
		}
	}
}

// dropReason is why an acknowledgement after the verdict was dropped, in the words of the reference.
func dropReason(ctx context.Context, err error) string {
	switch {
	case ctx.Err() != nil:
		return "shutdown"
	case peer.ClassOf(err) == peer.ClassIDDrift:
		return "id_drift"
	}
	return "peer_fail"
}

// tellPartial counts and logs batches that a quorum has and some peer still misses at the end.
func (f *fanOut) tellPartial(ctx context.Context) {
	for i, b := range f.batches {
		t := f.trackers[i]
		if verdict, _ := t.Verdict(); verdict != quorum.VerdictMet {
			continue
		}
		var urls []string
		for _, p := range f.cfg.Peers {
			if t.Outcome(p) != quorum.Ack {
				urls = append(urls, f.cfg.pushURL(p))
			}
		}
		if len(urls) == 0 {
			continue
		}
		f.cfg.Metrics.PartialQuorum()
		slices.Sort(urls)
		if before, now := f.cfg.partial.say(strings.Join(urls, " "), partialEvery); now {
			f.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "partial quorum: some peers miss what a quorum has",
				slog.String("memory_id", b.Entries[0].Key), slog.Int("entries", len(b.IDs)), slog.Int("n_missing", len(urls)),
				slog.Any("peer_urls", urls), slog.Int("batches_not_logged_before", before))
		}
	}
}

func (c Config) pushURL(p string) string {
	if url, ok := c.PushURLs[p]; ok {
		return url
	}
	return p
}

// sometimes keeps a line that could be logged thousands of times a second to once in a while. Safe for concurrent use.
type sometimes struct {
	mu   sync.Mutex
	last map[string]*said
}

type said struct {
	at      time.Time
	omitted int
}

// maxSaid bounds how many different texts are remembered.
const maxSaid = 1000

func newSometimes() *sometimes { return &sometimes{last: map[string]*said{}} }

// say reports whether text is to be logged now, and if so how often it was not since it was last.
func (s *sometimes) say(text string, every time.Duration) (omitted int, now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, ok := s.last[text]
	if !ok {
		if len(s.last) >= maxSaid {
			clear(s.last)
		}
		s.last[text] = &said{at: time.Now()}
		return 0, true
	}
	if time.Since(before.at) < every {
		before.omitted++
		return 0, false
	}
	omitted = before.omitted
	*before = said{at: time.Now()}
	return omitted, true
}

package quorum_test

import (
	"context"
	"slices"
	"time"

	"quorumbox/quorum"
)

// reply is what a scripted peer does: answers after a while, unless its context ends first.
type reply struct {
	after     time.Duration
	outcome   quorum.Outcome
	deafToCtx bool
}

func acking(after time.Duration) reply  { return reply{after: after, outcome: quorum.Ack} }
func failing(after time.Duration) reply { return reply{after: after, outcome: quorum.Fail} }
func hanging() reply                    { return reply{after: 1000 * time.Hour, outcome: quorum.Ack} }

// peers answers every send by name, with the same outcome for each of votes trackers.
type peers struct {
	votes   int
	replies map[string]reply
}

func (p peers) names() []string {
	var names []string
	for name := range p.replies {
		names = append(names, name)
	}
	slices.Sort(names)
	slices.Reverse(names) // so that a test sees who sorts
	return names
}

func (p peers) send(ctx context.Context, peer string) []quorum.Outcome {
	r := p.replies[peer]
	done := ctx.Done()
	if r.deafToCtx {
		done = nil
	}
	timer := time.NewTimer(r.after)
	defer timer.Stop()
	select {
	case <-timer.C:
		return slices.Repeat([]quorum.Outcome{r.outcome}, p.votes)
	case <-done:
		return slices.Repeat([]quorum.Outcome{quorum.Unknown}, p.votes)
	}
}

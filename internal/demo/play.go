package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"quorumbox/internal/importer"
	"quorumbox/internal/status"
	"quorumbox/outbox"
)

// play is what happens on the stage.
type play struct {
	*stage

	source  *source
	start   time.Time
	killed  time.Time
	changes outbox.Verdict // of the changes made by hand

	imports *progress
}

// progress is how far the import is, for the one who reads the lines and the one who draws.
type progress struct {
	mu    sync.Mutex // guards what follows; never held across a wait
	last  importer.Summary
	moved chan struct{} // closed and replaced when last changes
}

func newProgress() *progress { return &progress{moved: make(chan struct{})} }

func (p *progress) set(s importer.Summary) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = s
	close(p.moved)
	p.moved = make(chan struct{})
}

func (p *progress) get() (importer.Summary, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last, p.moved
}

// awaitLines waits until that many lines are stored or found bad.
func (p *progress) awaitLines(ctx context.Context, n int) error {
	for {
		summary, moved := p.get()
		if summary.Lines >= int64(n) {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// run plays it all and compares.
func (p *play) run(ctx context.Context) (Summary, error) {
	p.start, p.imports = time.Now(), newProgress()
	summary := Summary{Source: p.source.name}
	watchCtx, stopWatching := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { p.watch(watchCtx) })
	defer func() { stopWatching(); watching.Wait() }()

	imported, err := p.importAll(ctx)
	summary.Import, summary.Changes = imported, p.changes
	if err != nil {
		return summary, err
	}
	if err := p.restart(ctx); err != nil {
		return summary, err
	}
	back := time.Now()
	if err := p.converge(ctx); err != nil {
		return summary, err
	}
	summary.CatchUp = time.Since(back)
	stopWatching()
	watching.Wait()
	p.show.panel(nil)
	p.show.event("in step", "%s later no peer misses anything; comparing every field", seconds(summary.CatchUp))
	if err := p.compareAll(ctx, &summary); err != nil {
		return summary, err
	}
	if err := p.readLatency(ctx, &summary); err != nil {
		return summary, err
	}
	summary.Took = time.Since(p.start)
	return summary, nil
}

// importAll imports the memories, and on the way kills a peer and changes some of them.
func (p *play) importAll(ctx context.Context) (importer.Summary, error) {
	in, err := p.source.open()
	if err != nil {
		return importer.Summary{}, err
	}
	defer in.Close()
	size := p.source.size
	stops := []stop{
		{at: size / 3, do: func(ctx context.Context) error { return p.kill(ctx, size/3) }},
		{at: 2 * size / 3, do: func(ctx context.Context) error { return p.change(ctx, 2*size/3) }},
	}
	// The import may end early, while a line waits for its stop.
	ctx, cancel := context.WithCancel(ctx)
	lines := newGate(ctx, in, size, p.cfg.Pace, stops)
	defer lines.close()
	defer cancel()

	how := "as fast as it goes"
	if p.cfg.Pace > 0 {
		how = fmt.Sprintf("spread over %s (--pace)", p.cfg.Pace)
	}
	p.show.event("import", "%s memories of %s, %s", count(size), p.source.name, how)
	p.show.event("", "met: a quorum had the write in time; misses: what a peer still has to get")
	summary, err := importer.Run(ctx, p.pool, lines, importer.Options{
		Chunk:      min(max(size/200, 1), importer.DefaultChunk),
		Await:      true,
		OnBad:      func(b importer.Bad) { p.show.event("bad line", "line %d (id %q): %v", b.Line, b.ID, b.Err) },
		OnProgress: func(progress importer.Progress) { p.imports.set(progress.Summary) },
	})
	if err != nil {
		return summary, err
	}
	// A file of very few lines ends before its stops.
	for _, left := range lines.stops {
		if err := left.do(ctx); err != nil {
			return summary, err
		}
	}
	met := summary.Verdicts.Met + summary.Verdicts.Pruned
	p.show.event("imported", "%s memories, %s/s; quorum met for %s of them, although %s died",
		count(summary.Entries()), count(int64(summary.Rate())), count(met), p.peers[victim].id)
	return summary, nil
}

// kill kills one peer once that many lines are stored.
func (p *play) kill(ctx context.Context, lines int) error {
	if err := p.imports.awaitLines(ctx, lines); err != nil {
		return err
	}
	v := p.peers[victim]
	pid := v.pid()
	v.kill()
	p.killed = time.Now()
	p.show.event("SIGKILL", "%s (%d) is dead; the local commit and the other two still make a quorum", v.id, pid)
	return nil
}

// restart starts the killed peer again on its old data.
func (p *play) restart(ctx context.Context) error {
	if err := waitUntil(ctx, p.killed.Add(minOutage)); err != nil {
		return err
	}
	v := p.peers[victim]
	if err := v.start(ctx); err != nil {
		return err
	}
	p.show.event("restart", "%s (%d) is back after %s; retry jobs bring it what it missed, in order",
		v.id, v.pid(), seconds(time.Since(p.killed)))
	return nil
}

// converge waits until no peer misses anything.
func (p *play) converge(ctx context.Context) error {
	var last status.Report
	err := poll(ctx, convergeTimeout, "the peers to come into step", func(ctx context.Context) (bool, error) {
		report, err := status.Read(ctx, p.pool)
		if err != nil {
			return false, err
		}
		last = report
		return settled(report), nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %s", err, last.Summary)
	}
	return err
}

// settled reports whether everything that was written is decided and acknowledged by every peer.
func settled(r status.Report) bool {
	for _, p := range r.Peers {
		if !p.InStep || p.InFlight > 0 {
			return false
		}
	}
	return r.Undispatched.Entries == 0 && r.Undecided.Entries == 0
}

package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/importer"
	"quorumbox/internal/secret"
	"quorumbox/internal/status"
)

// StoryConfig says what a story is told of: a fleet that runs, to which it writes as any application does.
type StoryConfig struct {
	Pool     *pgxpool.Pool // of a user with the roles of a writer and a viewer
	SenderID string        // of the workers
	Quorum   string        // what a write needs, in words
	Peers    []StoryPeer

	// File, Pace: as those of [Config].
	File string
	Pace time.Duration

	// Wait is how long the peers may take to have everything after the last write.
	Wait time.Duration

	Out  io.Writer
	View View
}

// StoryPeer is a reference peer.
type StoryPeer struct {
	ID, URL string
	APIKey  secret.Secret // zero: none
}

// ErrStoryDiffers says that some peer did not have every memory of the story in the end.
var ErrStoryDiffers = errors.New("not every peer has all of it")

func (c StoryConfig) validate() error {
	switch {
	case c.Pool == nil || c.Out == nil:
		return errors.New("story: Pool and Out must be set")
	case c.Pace < 0 || c.Pace > time.Hour:
		return fmt.Errorf("the pace is %s: want 0 (as fast as it goes) to 1h", c.Pace)
	case c.Wait <= 0 || c.Wait > time.Hour:
		return fmt.Errorf("the wait is %s: want more than 0, and 1h at most", c.Wait)
	case len(c.Peers) == 0:
		return errors.New("no peers are configured, so there is nothing to see: set peers")
	}
	return nil
}

// story is one that is being told.
type story struct {
	StoryConfig

	show    *screen
	name    string // the end of the ids and namespaces of its memories
	source  *source
	imports *progress
	client  *http.Client
}

// Tell writes memories of its own, new ones at each call, and shows their verdicts and how they come to every peer; in the end it compares
// each with the store, field by field. [ErrStoryDiffers] if some peer lacks some. What it wrote stays.
func Tell(ctx context.Context, cfg StoryConfig) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	source, err := openSource(cfg.File)
	if err != nil {
		return err
	}
	s := &story{
		StoryConfig: cfg, show: newScreen(cfg.Out, cfg.View), name: strings.ToLower(rand.Text()[:8]), source: source, imports: newProgress(),
		client: &http.Client{Transport: &http.Transport{}, Timeout: time.Minute, CheckRedirect: stay}, // not through a proxy
	}
	defer s.client.CloseIdleConnections()
	defer s.show.stop()
	return s.tell(ctx)
}

// stay keeps a client, which sends a key, from going where an answer points.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func (s *story) tell(ctx context.Context) error {
	report, err := status.Read(ctx, s.Pool)
	if err != nil {
		return err
	}
	s.show.event("story", "%d peers; a write needs %s, the local commit being one", len(s.Peers), s.Quorum)
	if !report.WorkerRuns {
		s.show.event("", "no worker seems to run: there will be no verdicts until one does")
	}
	begin := time.Now()
	watchCtx, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { s.watch(watchCtx) })
	defer func() { stop(); watching.Wait() }()

	summary, err := s.write(ctx)
	if err != nil {
		return err
	}
	last, err := s.converge(ctx)
	if err != nil {
		return err
	}
	stop()
	watching.Wait()
	s.show.panel(nil)
	if settled(last) {
		s.show.event("in step", "no peer misses anything; comparing every field")
	} else {
		s.show.event("lagging", "%s", last.Summary)
	}
	return s.compare(ctx, summary, time.Since(begin))
}

// write imports the memories.
func (s *story) write(ctx context.Context) (importer.Summary, error) {
	in, err := s.source.open()
	if err != nil {
		return importer.Summary{}, err
	}
	defer in.Close()
	ctx, cancel := context.WithCancel(ctx)
	lines := newGate(ctx, in, s.source.size, s.Pace, nil)
	defer lines.close()
	defer cancel()
	renamed, write := io.Pipe()
	var renaming sync.WaitGroup
	renaming.Go(func() { write.CloseWithError(rename(write, lines, s.name)) })
	defer renaming.Wait()
	defer renamed.Close()

	how := "as fast as it goes"
	if s.Pace > 0 {
		how = fmt.Sprintf("spread over %s (--pace)", s.Pace)
	}
	s.show.event("write", "%s memories of %s as …-%s, %s", count(s.source.size), s.source.name, s.name, how)
	s.show.event("", "met: a quorum had the write in time; misses: what a peer still has to get")
	summary, err := importer.Run(ctx, s.Pool, renamed, importer.Options{
		Chunk:      min(max(s.source.size/200, 1), importer.DefaultChunk),
		Await:      true,
		OnBad:      func(b importer.Bad) { s.show.event("bad line", "line %d (id %q): %v", b.Line, b.ID, b.Err) },
		OnProgress: func(progress importer.Progress) { s.imports.set(progress.Summary) },
	})
	if err != nil {
		return summary, err
	}
	v := summary.Verdicts
	s.show.event("written", "%s memories, %s/s; quorum met for %s, not met for %s%s, undecided %s", count(summary.Entries()), count(int64(summary.Rate())),
		count(v.Met+v.Pruned), count(sum(v.NotMet)), reasons(v.NotMet), count(v.Undecided))
	return summary, nil
}

// rename copies memories, a JSON object a line, with ids and namespaces of their own: a story can be told again and again. What is no object goes
// through as it is: the import says what is wrong with it.
func rename(out io.Writer, in io.Reader, name string) error {
	lines := lineScanner(in)
	for lines.Scan() {
		line := lines.Bytes()
		if m, err := decodeObject(line); err == nil {
			for field, text := range map[string]string{"id": "%s-%s", "namespace": "%s/%s"} {
				if value, ok := m[field].(string); ok {
					m[field] = fmt.Sprintf(text, value, name)
				}
			}
			if line, err = json.Marshal(m); err != nil {
				return fmt.Errorf("rename a memory: %w", err)
			}
		}
		if _, err := out.Write(append(bytes.Clone(line), '\n')); err != nil {
			return err
		}
	}
	return lines.Err()
}

// converge waits until no peer misses anything, but not longer than it is to wait. It returns the last state.
func (s *story) converge(ctx context.Context) (last status.Report, err error) {
	err = poll(ctx, s.Wait, "the peers to come into step", func(ctx context.Context) (bool, error) {
		report, err := status.Read(ctx, s.Pool)
		if err != nil {
			return false, err
		}
		last = report
		return settled(report), nil
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = nil // shown as it is
	}
	return last, err
}

// compare compares the story's memories at each peer with the store and shows the result.
func (s *story) compare(ctx context.Context, summary importer.Summary, took time.Duration) error {
	var results []PeerResult
	var silent []string
	equal := 0
	for _, p := range s.Peers {
		result, err := s.comparePeer(ctx, p)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			silent = append(silent, fmt.Sprintf("%s cannot be read: %v", p.ID, err))
			continue
		}
		results = append(results, result)
		if result.Different+result.Missing+result.Extra == 0 && result.Rows > 0 {
			equal++
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "\n%s memories of this story, all 26 fields of each compared with every peer\n\n", count(summary.Entries()))
	writePeers(&b, results)
	for _, text := range silent {
		fmt.Fprintf(&b, "%s\n", text)
	}
	fmt.Fprintf(&b, "%s in all. ", seconds(took))
	if equal == len(s.Peers) {
		fmt.Fprintf(&b, "All %d peers equal the store, field by field.\n", equal)
	} else {
		fmt.Fprintf(&b, "%d of %d peers equal the store; the others get what they miss as soon as they can.\n", equal, len(s.Peers))
	}
	s.show.print(b.String())
	if equal < len(s.Peers) {
		return ErrStoryDiffers
	}
	return nil
}

func (s *story) comparePeer(ctx context.Context, p StoryPeer) (PeerResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // also of a row that was not read to its end
	body, err := s.get(ctx, p, "/_ref/memories")
	if err != nil {
		return PeerResult{}, err
	}
	defer body.Close()
	rows, err := s.Pool.Query(ctx, memoriesSQL+` where right(id, length($1)) = $1 order by id collate "C"`, "-"+s.name)
	if err != nil {
		return PeerResult{}, err
	}
	defer rows.Close()
	return compareSides(p.ID, s.SenderID, storeSide(rows), endingIn("-"+s.name, peerSide(body)))
}

// endingIn leaves out what has another id.
func endingIn(end string, from side) side {
	return func() (id string, text []byte, err error) {
		for {
			if id, text, err = from(); err != nil || strings.HasSuffix(id, end) {
				return id, text, err
			}
		}
	}
}

// get asks a peer and returns the body of a 200.
func (s *story) get(ctx context.Context, p StoryPeer, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	if !p.APIKey.IsZero() {
		req.Header.Set("X-Api-Key", p.APIKey.Reveal())
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("GET %s: %s", path, resp.Status), resp.Body.Close())
	}
	return resp.Body, nil
}

package demo

import (
	"bufio"
	"bytes"
	"context"
	_ "embed" // the sample
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// sample is an invented set of memories: 30 in each of twelve namespaces, in every shape that the protocol has.
//
//go:embed sample.jsonl
var sample []byte

// source is what is imported, as JSON lines.
type source struct {
	name string
	path string // "" for the sample
	size int    // lines that are not blank
}

// openSource counts the lines of the file, or of the sample if path is empty.
func openSource(path string) (*source, error) {
	s := &source{name: "the sample", path: path}
	if path != "" {
		s.name = path
	}
	r, err := s.open()
	if err != nil {
		return nil, err
	}
	lines := bufio.NewReaderSize(r, 64<<10)
	for blank := true; err == nil; {
		var part []byte
		part, err = lines.ReadSlice('\n')
		blank = blank && len(bytes.TrimSpace(part)) == 0
		if errors.Is(err, bufio.ErrBufferFull) {
			err = nil
			continue
		}
		if !blank {
			s.size++
		}
		blank = true
	}
	if !errors.Is(err, io.EOF) {
		return nil, errors.Join(fmt.Errorf("read the memories: %w", err), r.Close())
	}
	if s.size == 0 {
		return nil, errors.Join(fmt.Errorf("%s has no memories: give a file with one JSON object a line", s.name), r.Close())
	}
	return s, r.Close()
}

func (s *source) open() (io.ReadCloser, error) {
	if s.path == "" {
		return io.NopCloser(bytes.NewReader(sample)), nil
	}
	f, err := os.Open(s.path)
	if err != nil {
		return nil, fmt.Errorf("open the memories: %w", err)
	}
	return f, nil
}

// gate hands lines out one by one, each when it is due, and stops at some of them for something to happen first.
type gate struct {
	in    *bufio.Reader
	size  int           // lines that are not blank
	pace  time.Duration // over which they are spread
	stops []stop        // in order

	ctx  func() context.Context
	mu   sync.Mutex // held during a Read, so that close can wait for it
	line []byte     // of which a part has been read
	long bool       // the line goes on beyond line
	next int        // number of the next line that is not blank, from 0
	from time.Time  // when the first line was handed out
	over bool
}

// stop is what happens before the line of that number (from 0) is handed out.
type stop struct {
	at int
	do func(ctx context.Context) error
}

func newGate(ctx context.Context, in io.Reader, size int, pace time.Duration, stops []stop) *gate {
	return &gate{
		in: bufio.NewReaderSize(in, 64<<10), size: size, pace: pace, stops: stops,
		// A Read has no context of its own.
		ctx: func() context.Context { return ctx },
	}
}

// Read returns at most a line. It ends with the gate's context.
func (g *gate) Read(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return 0, io.ErrClosedPipe
	}
	if len(g.line) == 0 {
		if err := g.fetch(g.ctx()); err != nil {
			return 0, err
		}
	}
	n := copy(b, g.line)
	g.line = g.line[n:]
	return n, nil
}

// fetch reads a line, or the next part of a very long one, and waits for its time.
func (g *gate) fetch(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	continued := g.long
	line, err := g.in.ReadSlice('\n')
	g.long = errors.Is(err, bufio.ErrBufferFull)
	if len(line) == 0 {
		return err
	}
	if !continued && len(bytes.TrimSpace(line)) > 0 {
		if err := g.wait(ctx); err != nil {
			return err
		}
	}
	g.line = line
	return nil
}

// wait does what has to happen before the next line, and waits for its time.
func (g *gate) wait(ctx context.Context) error {
	for len(g.stops) > 0 && g.stops[0].at <= g.next {
		do := g.stops[0].do
		g.stops = g.stops[1:]
		if err := do(ctx); err != nil {
			return err
		}
	}
	if g.next == 0 {
		g.from = time.Now()
	}
	at := g.from.Add(time.Duration(float64(g.pace) * float64(g.next) / float64(g.size)))
	g.next++
	return waitUntil(ctx, at)
}

// close waits for a Read that is under way; later ones fail.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
}

func waitUntil(ctx context.Context, at time.Time) error {
	pause := time.Until(at)
	if pause <= 0 {
		return nil
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

package demo

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// screen writes events, one below the other, and in the view [Live] a panel that stays below them. Safe for concurrent use. Errors of
// the writer are dropped: a demo whose reader has gone still cleans up.
type screen struct {
	out   io.Writer
	view  View
	start time.Time

	mu     sync.Mutex // guards what follows, and the writer
	drawn  int        // lines of the panel that stand there now
	lines  []string   // of the panel
	closed bool       // no panel any more
}

func newScreen(out io.Writer, view View) *screen {
	return &screen{out: out, view: view, start: time.Now()}
}

// event writes a line: the time since the start, one word, a sentence.
func (s *screen) event(word, format string, args ...any) {
	s.print(fmt.Sprintf("%6.1fs  %-9s %s\n", time.Since(s.start).Seconds(), word, fmt.Sprintf(format, args...)))
}

// print writes text, whole lines, above the panel.
func (s *screen) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b bytes.Buffer
	s.erase(&b)
	b.WriteString(text)
	s.draw(&b)
	_, _ = s.out.Write(b.Bytes())
}

// panel replaces the panel.
func (s *screen) panel(lines []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view != Live || s.closed {
		return
	}
	s.lines = lines
	var b bytes.Buffer
	s.erase(&b)
	s.draw(&b)
	_, _ = s.out.Write(b.Bytes())
}

// stop removes the panel for good.
func (s *screen) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var b bytes.Buffer
	s.erase(&b)
	s.lines = nil
	_, _ = s.out.Write(b.Bytes())
}

// Control sequences of ECMA-48, and DECAWM, which cuts a line at the terminal's edge instead of going on below: a panel whose lines wrap
// could not be erased again. It is switched back on in the same write.
const (
	upLines    = "\x1b[%dA"
	eraseBelow = "\r\x1b[J"
	noWrap     = "\x1b[?7l"
	wrap       = "\x1b[?7h"
)

func (s *screen) erase(b *bytes.Buffer) {
	if s.drawn > 0 {
		fmt.Fprintf(b, upLines+eraseBelow, s.drawn)
		s.drawn = 0
	}
}

func (s *screen) draw(b *bytes.Buffer) {
	if len(s.lines) == 0 || s.closed {
		return
	}
	b.WriteString(noWrap)
	rule := strings.Repeat("─", 72)
	for _, line := range append([]string{rule}, s.lines...) {
		b.WriteString(line)
		b.WriteString("\n")
	}
	b.WriteString(wrap)
	s.drawn = len(s.lines) + 1
}

// count writes a number with commas: 8,423.
func count[T int | int64](n T) string {
	text := strconv.FormatInt(int64(n), 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// seconds writes a length of time to the tenth of a second.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

// milliseconds writes a short length of time.
func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1fms", float64(d.Microseconds())/1000)
}

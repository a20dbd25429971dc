package quorum_test

import (
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"testing"

	"quorumbox/quorum"
)

//go:embed testdata/*.txt
var scripts embed.FS

// TestScripts runs the files of testdata. A line is a command, "= " and what the vote must read like after the
// commands above it, "! " and a part of the error that the command above it must have, or a comment with "#".
//
//	vote W PEER...   starts a vote that needs W of 1 + the peers
//	OUTCOME PEER     records an outcome
//	expire           the deadline passes
//
// Every vote's facts are then checked against the laws and the oracle.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(scripts, "testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts: got %v, %v, want some", files, err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			text, err := scripts.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			runScript(t, file, string(text))
		})
	}
}

func runScript(t *testing.T, file, text string) {
	t.Helper()
	var s script
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "= "):
			if got, want := s.tracker.Describe(), line[2:]; got != want {
				t.Errorf("%s:%d: got  %s\nwant %s", file, i+1, got, want)
			}
		case strings.HasPrefix(line, "! "):
			if s.err == nil || !strings.Contains(s.err.Error(), line[2:]) {
				t.Errorf("%s:%d: got error %v, want one with %q", file, i+1, s.err, line[2:])
			}
			s.err = nil
		default:
			if s.err != nil {
				t.Fatalf("%s:%d: error before this line: %v", file, i+1, s.err)
			}
			if strings.HasPrefix(line, "vote ") {
				s.checkLaws(t)
			}
			s.err = s.run(strings.Fields(line))
		}
	}
	if s.err != nil {
		t.Fatalf("%s: last command: %v", file, s.err)
	}
	s.checkLaws(t)
}

type script struct {
	tracker *quorum.Tracker
	needed  int
	peers   []string
	facts   []fact
	err     error
}

func (s *script) run(words []string) error {
	switch {
	case words[0] == "vote" && len(words) >= 2:
		needed, err := strconv.Atoi(words[1])
		if err != nil {
			return err
		}
		tr, err := quorum.NewTracker(quorum.Policy{N: len(words) - 1, W: needed}, words[2:])
		if err != nil {
			return err
		}
		*s = script{tracker: tr, needed: needed, peers: words[2:]}
		return nil
	case words[0] == "expire" && len(words) == 1:
		s.tracker.Expire()
		s.facts = append(s.facts, fact{expire: true})
		return nil
	}
	for o := quorum.Fail; o <= quorum.Ack; o++ {
		if words[0] != o.String() || len(words) != 2 {
			continue
		}
		if err := s.tracker.Record(words[1], o); err != nil {
			return err
		}
		s.facts = append(s.facts, fact{peer: words[1], outcome: o})
		return nil
	}
	return fmt.Errorf("no such command: %q", words)
}

func (s *script) checkLaws(t *testing.T) {
	t.Helper()
	if s.tracker == nil {
		return
	}
	for seed := range uint64(5) {
		checkLaws(t, s.needed, s.peers, s.facts, seed)
	}
}

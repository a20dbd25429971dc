package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The commands that the runbook tells an operator to type are there, with the flags that it names.
func TestRunbookCommands(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/runbook/*.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)\n```sh\n(.*?)```")
	inBlock, inText := regexp.MustCompile(`(?m)^worker ([a-z][^#|\n]*)`), regexp.MustCompile("`worker ([a-z][^`]*)`")
	checked := 0
	for _, page := range pages {
		raw, err := os.ReadFile(page) //nolint:gosec // a file of this repository
		if err != nil {
			t.Fatal(err)
		}
		matches := inText.FindAllStringSubmatch(string(raw), -1)
		for _, lines := range block.FindAllStringSubmatch(string(raw), -1) {
			matches = append(matches, inBlock.FindAllStringSubmatch(lines[1], -1)...)
		}
		for _, match := range matches {
			checked++
			cmd, rest, err := newRootCommand().Find(strings.Fields(match[1]))
			if err != nil || !cmd.HasParent() {
				t.Errorf("%s: worker %s: no such command: %v", page, match[1], err)
				continue
			}
			if cmd.HasSubCommands() && len(rest) > 0 {
				t.Errorf("%s: worker %s: %s has no such command", page, match[1], cmd.Name())
			}
			if err := cmd.ParseFlags(rest); err != nil {
				t.Errorf("%s: worker %s: %v", page, match[1], err)
			}
			args := cmd.Flags().Args()
			if err := cmd.ValidateArgs(args); err != nil {
				t.Errorf("%s: worker %s: %v", page, match[1], err)
			}
		}
	}
	if checked < 20 {
		t.Errorf("got %d commands in %d pages", checked, len(pages))
	}
}

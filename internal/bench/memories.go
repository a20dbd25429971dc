package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/google/uuid"

	"quorumbox/outbox"
)

const (
	// namespaces of generated memories: as many as there are lanes, so that most lanes are in use.
	namespaces = 32

	// maxLine bounds a line of the file: a memory's largest content and metadata, escaped.
	maxLine = 1 << 20

	// maxMemories bounds what is read of the file; the writers begin again at its start.
	maxMemories = 100_000

	// titleSuffix is what a fresh title may add to one of the file.
	titleSuffix = 24
)

// memories makes memories that are all new: each has an id and a title of its own. Safe for concurrent use.
type memories struct {
	models []outbox.Memory
	next   atomic.Int64
}

// newMemories returns memories like those of the JSONL file, or generated ones with contents of the given size if path is empty.
func newMemories(path string, contentBytes int) (*memories, error) {
	if path == "" {
		return &memories{models: generated(contentBytes)}, nil
	}
	models, err := readModels(path)
	if err != nil {
		return nil, fmt.Errorf("read memories: %w", err)
	}
	return &memories{models: models}, nil
}

func generated(contentBytes int) []outbox.Memory {
	const sentence = "The agent noted what it had seen, and why that mattered for the task at hand. "
	text := strings.Repeat(sentence, contentBytes/len(sentence)+1)[:contentBytes]
	if strings.HasSuffix(text, " ") {
		text = text[:len(text)-1] + "."
	}
	models := make([]outbox.Memory, namespaces)
	for i := range models {
		models[i] = outbox.Memory{
			Namespace: fmt.Sprintf("bench/%02d", i),
			Title:     "What the agent noted",
			Content:   text,
			Tier:      "long",
			Tags:      []string{"bench"},
			Metadata:  json.RawMessage(`{"agent_id":"ai:bench","scope":"collective"}`),
		}
	}
	return models
}

func readModels(path string) ([]outbox.Memory, error) {
	f, err := os.Open(path) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	var models []outbox.Memory
	for n := 1; len(models) < maxMemories && lines.Scan(); n++ {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		var m outbox.Memory
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, n, err)
		}
		title := []rune(m.Title)
		m.Title = strings.TrimSpace(string(title[:min(len(title), outbox.MaxTitleChars-titleSuffix)]))
		if err := m.Validate(); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, n, err)
		}
		models = append(models, m)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(models) == 0 {
		return nil, errors.New(path + " holds no memory: give a file with one JSON object a line")
	}
	return models, nil
}

// new returns the next memory. Its times are left to the database.
func (m *memories) new() outbox.Memory {
	n := m.next.Add(1)
	memory := m.models[n%int64(len(m.models))]
	memory.ID = uuid.NewString()
	memory.Title = fmt.Sprintf("%s #%d", memory.Title, n)
	return memory
}

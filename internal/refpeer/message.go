package refpeer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxItems is how many elements one list of a push may have by default.
const maxItems = 1000

// list is one of the lists of a push, in the order of applying.
type list int

// Embeddings belong to the memories and come right after them.
const (
	listMemories list = iota
	listEmbeddings
	listDeletions
	listArchives
	listRestores
	listLinks
	listPendings
	listDecisions
	listNamespaceMeta
	listNamespaceClears
	lists // how many there are
)

// String is the list's name on the wire.
func (l list) String() string {
	names := [...]string{
		"memories", "embeddings", "deletions", "archives", "restores", "links", "pendings", "pending_decisions",
		"namespace_meta", "namespace_meta_clears",
	}
	if l < 0 || int(l) >= len(names) {
		return fmt.Sprintf("list(%d)", int(l))
	}
	return names[l]
}

func allLists() []list {
	out := make([]list, lists)
	for i := range out {
		out[i] = list(i)
	}
	return out
}

// message is the decoded body of a push.
type message struct {
	sender          string
	dryRun          bool
	memories        []memory
	embeddings      []embedding
	deletions       []string
	archives        []string
	restores        []string
	links           []link
	pendings        []pending
	decisions       []decision
	namespaceMeta   []namespaceMeta
	namespaceClears []string
}

// parseMessage decodes a body. Every error means 400 for the whole push.
func parseMessage(body string) (*message, error) {
	if !utf8.ValidString(body) {
		return nil, fmt.Errorf("%w: not UTF-8", errSyntax)
	}
	msg := &message{}
	s := scanner{text: body}
	seen := map[string]struct{}{}
	s.object(func(key string) {
		if s.messageField(msg, key) {
			if _, twice := seen[key]; twice {
				s.failf("field %s appears twice", key)
			}
			seen[key] = struct{}{}
		}
	})
	s.end()
	if s.err != nil {
		return nil, s.err
	}
	for _, key := range []string{"sender_agent_id", "memories"} {
		if _, ok := seen[key]; !ok {
			return nil, errors.New("the body lacks the field " + key)
		}
	}
	return msg, nil
}

// messageField reads one field; false means that the protocol (as of 0.7.1)
// does not know it and that it was skipped.
func (s *scanner) messageField(msg *message, key string) bool {
	switch key {
	case "sender_agent_id":
		msg.sender = s.str()
	case "dry_run":
		msg.dryRun = s.boolean(key)
	case "memories":
		s.array(func() { msg.memories = append(msg.memories, s.memory()) })
	case "embeddings":
		s.array(func() { msg.embeddings = append(msg.embeddings, s.embedding()) })
	case "deletions":
		s.strings(&msg.deletions)
	case "archives":
		s.strings(&msg.archives)
	case "restores":
		s.strings(&msg.restores)
	case "links":
		s.array(func() { msg.links = append(msg.links, s.link()) })
	case "pendings":
		s.array(func() { msg.pendings = append(msg.pendings, s.pending()) })
	case "pending_decisions":
		s.array(func() { msg.decisions = append(msg.decisions, s.decision()) })
	case "namespace_meta":
		s.array(func() { msg.namespaceMeta = append(msg.namespaceMeta, s.namespaceMeta()) })
	case "namespace_meta_clears":
		s.strings(&msg.namespaceClears)
	case "sender_clock":
		s.object(func(string) { s.skip(1) })
	case "sender_wall_clock":
		s.text0()
	default:
		s.skip(0)
		return false
	}
	return true
}

func (s *scanner) strings(into *[]string) {
	s.array(func() { *into = append(*into, s.str()) })
}

// element reads one object of a list. field reads the value of a known key, or
// returns false without reading. A missing or repeated key refuses the body.
func (s *scanner) element(what string, required []string, field func(key string) bool) {
	var seen []string
	s.object(func(key string) {
		if !field(key) {
			s.skip(1)
			return
		}
		if slices.Contains(seen, key) {
			s.failf("field %s appears twice in a %s", key, what)
		}
		seen = append(seen, key)
	})
	for _, key := range required {
		if s.err == nil && !slices.Contains(seen, key) {
			s.failf("a %s lacks the field %s", what, key)
		}
	}
}

// sizes are how many elements each list has.
func (m *message) sizes() [lists]int {
	return [lists]int{
		listMemories: len(m.memories), listEmbeddings: len(m.embeddings), listDeletions: len(m.deletions),
		listArchives: len(m.archives), listRestores: len(m.restores), listLinks: len(m.links), listPendings: len(m.pendings),
		listDecisions: len(m.decisions), listNamespaceMeta: len(m.namespaceMeta), listNamespaceClears: len(m.namespaceClears),
	}
}

// items is how many elements the lists have together.
func (m *message) items() int {
	n := 0
	for _, size := range m.sizes() {
		n += size
	}
	return n
}

// overCap names the first list with more than limit elements, "" if there is
// none.
func (m *message) overCap(limit int) string {
	for l, size := range m.sizes() {
		if size > limit {
			return list(l).String()
		}
	}
	return ""
}

// keys are the ids that a sender may expect to be acknowledged: one for each
// item, and for namespaces that are cleared together their names together too.
func (m *message) keys() []string {
	var out []string
	for i := range m.memories {
		out = append(out, m.memories[i].id)
	}
	out = slices.Concat(out, m.deletions, m.archives, m.restores)
	for i := range m.links {
		out = append(out, m.links[i].source+m.links[i].target)
	}
	for i := range m.pendings {
		out = append(out, m.pendings[i].id)
	}
	for i := range m.decisions {
		out = append(out, m.decisions[i].id)
	}
	for i := range m.namespaceMeta {
		out = append(out, m.namespaceMeta[i].namespace)
	}
	out = append(out, m.namespaceClears...)
	if len(m.namespaceClears) > 1 {
		out = append(out, strings.Join(m.namespaceClears, ","))
	}
	return out
}

// holds tells whether an item of the push has the id, at either end of a link,
// or the namespace, where that is the key.
func (m *message) holds(id string) bool {
	return slices.ContainsFunc(m.links, func(l link) bool { return l.source == id || l.target == id }) ||
		slices.Contains(m.keys(), id)
}

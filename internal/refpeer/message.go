package refpeer

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// maxItems is how many elements one list of a push may have.
const maxItems = 1000

// message is the decoded body of a push. Lists that this receiver does not
// apply are counted in others, for the cap and for dry runs.
type message struct {
	sender    string
	dryRun    bool
	memories  []memory
	deletions []string
	others    []otherList
}

// otherList is a list of the protocol that is read and left alone.
type otherList struct {
	name  string
	count int
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
	case "deletions":
		s.array(func() { msg.deletions = append(msg.deletions, s.str()) })
	case "archives", "restores", "links", "pendings", "pending_decisions", "namespace_meta", "namespace_meta_clears",
		"embeddings":
		list := otherList{name: key}
		s.array(func() {
			s.skip(1)
			list.count++
		})
		msg.others = append(msg.others, list)
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

// items is how many elements the lists have together.
func (m *message) items() int {
	n := len(m.memories) + len(m.deletions)
	for _, list := range m.others {
		n += list.count
	}
	return n
}

// overCap names the first list with more elements than a push may have, ""
// if there is none.
func (m *message) overCap() string {
	switch {
	case len(m.memories) > maxItems:
		return "memories"
	case len(m.deletions) > maxItems:
		return "deletions"
	}
	for _, list := range m.others {
		if list.count > maxItems {
			return list.name
		}
	}
	return ""
}

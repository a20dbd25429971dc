package refpeer

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of one memory (wire rules for receivers). A memory outside of them is
// counted as skipped; the push goes on.
const (
	maxIDBytes        = 128
	maxNamespaceRunes = 512
	maxNamespaceDepth = 8
	maxTitleRunes     = 512
	maxContentBytes   = 65536
	maxTags           = 50
	maxTagBytes       = 128
	maxSourceURIBytes = 4096
	maxCitations      = 64
	maxMetadataBytes  = 65536
	maxMetadataDepth  = 32
	maxPriority       = 10
)

// valid tells whether the receiver stores m.
func (m *memory) valid() bool {
	return validID(m.id) &&
		validNamespace(m.namespace) &&
		validTitle(m.title) &&
		m.content != "" && len(m.content) <= maxContentBytes && cleanText(m.content) &&
		m.tagsValid && m.tagCount <= maxTags &&
		m.priority >= 1 && m.priority <= maxPriority &&
		m.confidence >= 0 && m.confidence <= 1 &&
		isSource(m.source) &&
		m.accessCount >= 0 &&
		validTime(m.createdAt) && validTime(m.updatedAt) &&
		m.lastAccessedAt.validTime() && m.expiresAt.validTime() && m.confidenceDecayedAt.validTime() &&
		validSourceURI(m.sourceURI) &&
		m.citationCount <= maxCitations &&
		m.validMetadata()
}

func (m *memory) validMetadata() bool {
	if m.metadata == "" {
		return true
	}
	if m.metadata[0] != '{' || m.metadataDepth > maxMetadataDepth {
		return false
	}
	return len(m.metadata) <= maxMetadataBytes || len(appendRaw(nil, m.metadata, "")) <= maxMetadataBytes
}

func validID(id string) bool {
	if id == "" || len(id) > maxIDBytes || strings.Contains(id, "..") {
		return false
	}
	for i := range len(id) {
		if c := id[i]; !isAlphanumeric(c) && !strings.ContainsRune("_:.@-", rune(c)) {
			return false
		}
	}
	return true
}

// validAgentID is the grammar of sender and peer ids.
func validAgentID(id string) bool {
	if id == "" || len(id) > maxIDBytes || id[0] == '/' || strings.Contains(id, "..") {
		return false
	}
	for i := range len(id) {
		if c := id[i]; !isAlphanumeric(c) && !strings.ContainsRune("_-:@./", rune(c)) {
			return false
		}
	}
	return true
}

// reservedAgentID tells whether id is one that no sender may use.
func reservedAgentID(id string) bool {
	switch id {
	case "daemon", "system", "federation-catchup", "subscription-dispatch", "ai:http-internal", "ai:migrate",
		"export-internal", "governance-internal":
		return true
	}
	return false
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func validNamespace(ns string) bool {
	if utf8.RuneCountInString(ns) > maxNamespaceRunes || strings.Count(ns, "/") >= maxNamespaceDepth {
		return false
	}
	if strings.ContainsAny(ns, ` \`) {
		return false
	}
	for segment := range strings.SplitSeq(ns, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

func validTitle(title string) bool {
	return strings.TrimSpace(title) != "" && utf8.RuneCountInString(title) <= maxTitleRunes && cleanText(title)
}

// cleanText tells whether s has no control characters but LF and TAB.
func cleanText(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < 0x20 && c != '\n' && c != '\t', c == 0x7f:
			return false
		case c == 0xc2 && i+1 < len(s) && s[i+1] < 0xa0: // U+0080..U+009F
			return false
		}
	}
	return true
}

func validTime(s string) bool {
	_, err := time.Parse(time.RFC3339Nano, s)
	return err == nil
}

func (t text) validTime() bool {
	return !t.set || validTime(t.value)
}

func validSourceURI(uri text) bool {
	if !uri.set {
		return true
	}
	return len(uri.value) <= maxSourceURIBytes &&
		(strings.HasPrefix(uri.value, "uri:") || strings.HasPrefix(uri.value, "doc:") || strings.HasPrefix(uri.value, "file:"))
}

func isTier(s string) bool { return tierRank(s) > 0 }

// tierRank orders the tiers, 0 for an unknown one.
func tierRank(tier string) int {
	switch tier {
	case tierShort:
		return 1
	case tierMid:
		return 2
	case tierLong:
		return 3
	}
	return 0
}

const (
	tierShort = "short"
	tierMid   = "mid"
	tierLong  = "long"
)

const (
	kindReflection = "reflection"
	kindPersona    = "persona"
)

func isMemoryKind(s string) bool {
	switch s {
	case "observation", kindReflection, kindPersona, "concept", "entity", "claim", "relation", "event", "conversation",
		"decision":
		return true
	}
	return false
}

func isConfidenceSource(s string) bool {
	switch s {
	case "caller_provided", "auto_derived", "calibrated", "decayed", "curator_derived":
		return true
	}
	return false
}

func isSource(s string) bool {
	switch s {
	case "user", "nhi", "claude", "hook", "api", "cli", "import", "consolidation", "system", "chaos", "notify":
		return true
	}
	return false
}

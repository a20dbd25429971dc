package refpeer

import "strconv"

// memory is one element of the list memories: the 26 fields of the protocol.
// Raw fields hold JSON text; the empty text stands for null or absent.
type memory struct {
	// raw is the element as received, or as stored.
	raw string

	id, tier, namespace, title, content string
	tags                                string // raw
	priority                            int64
	confidence                          float64
	confidenceText                      string // as written: 1.0 stays 1.0
	source                              string
	accessCount                         int64
	createdAt, updatedAt                string

	lastAccessedAt, expiresAt     text
	entityID, sourceURI           text
	confidenceDecayedAt           text
	personaVersion                string // raw
	sourceSpan, confidenceSignals string // raw
	metadata                      string // raw
	reflectionDepth               int64
	memoryKind                    string
	citations                     string // raw
	confidenceSource              string
	version                       int64
	tagCount, citationCount       int
	tagsValid                     bool
	metadataDepth                 int
	metadataAgent, metadataScope  text
}

// text is a nullable string.
type text struct {
	value string
	set   bool
}

// orNull is the value for the database.
func (t text) orNull() any {
	if !t.set {
		return nil
	}
	return t.value
}

// The bits of the fields of a memory, to find missing and repeated ones. A
// repeated field refuses the body, as a derived decoder of the reference does.
const (
	hasID = 1 << iota
	hasTier
	hasNamespace
	hasTitle
	hasContent
	hasTags
	hasPriority
	hasConfidence
	hasSource
	hasAccessCount
	hasCreatedAt
	hasUpdatedAt
	hasLastAccessedAt
	hasExpiresAt
	hasEntityID
	hasPersonaVersion
	hasSourceURI
	hasSourceSpan
	hasConfidenceSignals
	hasConfidenceDecayedAt
	hasMetadata
	hasReflectionDepth
	hasMemoryKind
	hasCitations
	hasConfidenceSource
	hasVersion
)

// memory reads one element. An unknown enum text, a wrong type or a missing
// field is an error of the whole body (wire rules: 400), while a value out of
// its bounds is left to [memory.valid].
func (s *scanner) memory() memory {
	m := memory{
		memoryKind: "observation", confidenceSource: "caller_provided", version: 1,
		tagsValid: true,
	}
	s.space()
	start := s.pos
	seen := 0
	s.object(func(key string) {
		if bit := s.memoryField(&m, key); bit != 0 {
			if seen&bit != 0 {
				s.failf("field %s appears twice in a memory", key)
			}
			seen |= bit
		}
	})
	m.raw = s.text[start:s.pos]
	const required = hasUpdatedAt<<1 - 1
	if missing := required &^ seen; s.err == nil && missing != 0 {
		s.failf("a memory lacks the field %s", requiredName(missing))
	}
	return m
}

// requiredName names the first missing field of a set of bits.
func requiredName(missing int) string {
	names := [...]string{
		"id", "tier", "namespace", "title", "content", "tags", "priority", "confidence", "source",
		"access_count", "created_at", "updated_at",
	}
	for i, name := range names {
		if missing&(1<<i) != 0 {
			return name
		}
	}
	return ""
}

func (s *scanner) memoryField(m *memory, key string) int {
	switch key {
	case "id":
		m.id = s.str()
		return hasID
	case "tier":
		m.tier = s.enum(key, isTier)
		return hasTier
	case "namespace":
		m.namespace = s.str()
		return hasNamespace
	case "title":
		m.title = s.str()
		return hasTitle
	case "content":
		m.content = s.str()
		return hasContent
	case "tags":
		s.tags(m)
		return hasTags
	case "priority":
		m.priority = s.integer(key, 32)
		return hasPriority
	case "confidence":
		m.confidence, m.confidenceText = s.float(key)
		return hasConfidence
	case "source":
		m.source = s.str()
		return hasSource
	case "access_count":
		m.accessCount = s.integer(key, 64)
		return hasAccessCount
	case "created_at":
		m.createdAt = s.str()
		return hasCreatedAt
	case "updated_at":
		m.updatedAt = s.str()
		return hasUpdatedAt
	}
	return s.optionalField(m, key)
}

func (s *scanner) optionalField(m *memory, key string) int {
	switch key {
	case "last_accessed_at":
		m.lastAccessedAt = s.text0()
		return hasLastAccessedAt
	case "expires_at":
		m.expiresAt = s.text0()
		return hasExpiresAt
	case "entity_id":
		m.entityID = s.text0()
		return hasEntityID
	case "persona_version":
		if !s.null() {
			m.personaVersion = strconv.FormatInt(s.integer(key, 32), 10)
		}
		return hasPersonaVersion
	case "source_uri":
		m.sourceURI = s.text0()
		return hasSourceURI
	case "source_span":
		m.sourceSpan = s.nullable(s.span)
		return hasSourceSpan
	case "confidence_signals":
		m.confidenceSignals = s.nullable(func() { s.object(func(string) { s.skip(1) }) })
		return hasConfidenceSignals
	case "confidence_decayed_at":
		m.confidenceDecayedAt = s.text0()
		return hasConfidenceDecayedAt
	case "metadata":
		s.metadata(m)
		return hasMetadata
	case "reflection_depth":
		m.reflectionDepth = s.integer(key, 32)
		return hasReflectionDepth
	case "memory_kind":
		m.memoryKind = s.enum(key, isMemoryKind)
		return hasMemoryKind
	case "citations":
		s.citations(m)
		return hasCitations
	case "confidence_source":
		m.confidenceSource = s.enum(key, isConfidenceSource)
		return hasConfidenceSource
	case "version":
		m.version = s.integer(key, 64)
		return hasVersion
	}
	s.skip(1)
	return 0
}

// enum reads a string of a closed list; another text refuses the body.
func (s *scanner) enum(field string, known func(string) bool) string {
	v := s.str()
	if s.err == nil && !known(v) {
		s.failf("unknown %s", field)
	}
	return v
}

// text0 reads a nullable string.
func (s *scanner) text0() text {
	if s.null() {
		return text{}
	}
	return text{value: s.str(), set: true}
}

// nullable returns the JSON text that read walks over, "" for null.
func (s *scanner) nullable(read func()) string {
	if s.null() {
		return ""
	}
	s.space()
	start := s.pos
	read()
	return s.text[start:s.pos]
}

func (s *scanner) span() {
	var ends int
	s.object(func(key string) {
		switch key {
		case "start", "end":
			s.integer(key, 64)
			ends++
		default:
			s.skip(1)
		}
	})
	if ends != 2 {
		s.failf("a source span needs start and end")
	}
}

func (s *scanner) tags(m *memory) {
	s.space()
	start := s.pos
	s.array(func() {
		tag := s.str()
		m.tagCount++
		if tag == "" || len(tag) > maxTagBytes {
			m.tagsValid = false
		}
	})
	m.tags = s.text[start:s.pos]
}

func (s *scanner) citations(m *memory) {
	s.space()
	start := s.pos
	s.array(func() {
		m.citationCount++
		var needed int
		s.object(func(key string) {
			switch key {
			case "uri", "accessed_at":
				s.str()
				needed++
			case "hash":
				s.text0()
			case "span":
				s.nullable(s.span)
			default:
				s.skip(1)
			}
		})
		if needed != 2 {
			s.failf("a citation needs uri and accessed_at")
		}
	})
	m.citations = s.text[start:s.pos]
}

// metadata reads any JSON value: that it is an object within its bounds is
// for [memory.valid].
func (s *scanner) metadata(m *memory) {
	if s.peek() != '{' {
		m.metadata, m.metadataDepth = s.raw()
		return
	}
	start := s.pos
	depth := 0
	s.object(func(key string) {
		if s.peek() == '"' {
			value := s.str()
			switch key {
			case "agent_id":
				m.metadataAgent = text{value: value, set: true}
			case "scope":
				m.metadataScope = text{value: value, set: true}
			}
			return
		}
		depth = max(depth, s.skip(1))
	})
	m.metadata, m.metadataDepth = s.text[start:s.pos], depth+1
}

// parseMemory reads a stored row. An error means that the file was changed by
// somebody else.
func parseMemory(raw string) (memory, error) {
	s := scanner{text: raw}
	m := s.memory()
	s.end()
	return m, s.err
}

package outbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of a memory, by the federation protocol. A receiver skips a row that breaks one, so it is refused when it is written.
const (
	MaxIDBytes        = 128
	MaxNamespaceChars = 512
	MaxSegments       = 8
	MaxTitleChars     = 512
	MaxContentBytes   = 65536
	MaxTags           = 50
	MaxTagBytes       = 128
	MaxMetadataBytes  = 65536
	MaxMetadataDepth  = 32
	MaxCitations      = 64
	MaxSourceURIChars = 4096
)

// Memory is one memory in the shape of the federation protocol. The zero value of an optional field means its default.
//
// Times are kept to the microsecond, in UTC. Numbers in Metadata, SourceSpan and ConfidenceSignals are kept as Postgres' jsonb keeps them.
//
// Peers merge an update into the row that they have: a lower priority, confidence, access count or reflection depth, a lower tier and
// another creation time do not arrive there.
type Memory struct {
	ID         string          `json:"id"`         // 1..128 of A-Z a-z 0-9 _ : . @ -, no ".."; made by the caller, so that a write can be repeated
	Tier       string          `json:"tier"`       // short, mid or long; default mid
	Namespace  string          `json:"namespace"`  // up to 8 segments separated by "/"
	Title      string          `json:"title"`      // unique in its namespace
	Content    string          `json:"content"`    // 1..65,536 bytes
	Tags       []string        `json:"tags"`       // at most 50 of 1..128 bytes
	Priority   int             `json:"priority"`   // 1..10; default 5
	Confidence *float64        `json:"confidence"` // 0..1; default 1
	Source     string          `json:"source"`     // user, nhi, claude, hook, api, cli, import, consolidation, system, chaos or notify; default api
	Metadata   json.RawMessage `json:"metadata"`   // a JSON object; default {}. Its agent_id cannot change once stored

	AccessCount int64     `json:"access_count"`
	CreatedAt   time.Time `json:"created_at"` // default: now. The first store's value stays
	UpdatedAt   time.Time `json:"updated_at"` // default: now. Raised by a microsecond or more where an update would not be newer than the row

	LastAccessedAt      time.Time       `json:"last_accessed_at,omitzero"`
	ExpiresAt           time.Time       `json:"expires_at,omitzero"`
	EntityID            string          `json:"entity_id,omitzero"`
	PersonaVersion      *int32          `json:"persona_version,omitzero"`
	SourceURI           string          `json:"source_uri,omitzero"`  // starts with uri:, doc: or file:
	SourceSpan          json.RawMessage `json:"source_span,omitzero"` // {"start": int, "end": int}
	ConfidenceSignals   json.RawMessage `json:"confidence_signals,omitzero"`
	ConfidenceDecayedAt time.Time       `json:"confidence_decayed_at,omitzero"`
	ReflectionDepth     int32           `json:"reflection_depth"`
	MemoryKind          string          `json:"memory_kind"`       // default observation
	Citations           []Citation      `json:"citations"`         // at most 64
	ConfidenceSource    string          `json:"confidence_source"` // default caller_provided

	// Version is decided by the database: 1, then one more with each change. What a caller gives is not looked at.
	Version int64 `json:"version"`

	// Embedding is a vector of the content, sent along for peers that use the same model; nil for none. It is kept until the content
	// changes or another one is given.
	Embedding *Embedding `json:"-"`
}

// Citation is one source that a memory cites.
type Citation struct {
	URI        string          `json:"uri"`
	AccessedAt string          `json:"accessed_at"`
	Hash       string          `json:"hash,omitzero"`
	Span       json.RawMessage `json:"span,omitzero"`
}

// InvalidError is a row that no receiver would take. It names the field and the rule that it breaks.
type InvalidError struct {
	Field string
	Rule  string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Rule }

// withDefaults returns a copy with every default filled in and times cut to the microsecond.
func (m Memory) withDefaults() Memory {
	def := func(s *string, d string) {
		if *s == "" {
			*s = d
		}
	}
	def(&m.Tier, "mid")
	def(&m.Source, "api")
	def(&m.MemoryKind, "observation")
	def(&m.ConfidenceSource, "caller_provided")
	if m.Priority == 0 {
		m.Priority = 5
	}
	if m.Confidence == nil {
		m.Confidence = new(1.0)
	}
	if m.Tags == nil {
		m.Tags = []string{}
	}
	if m.Citations == nil {
		m.Citations = []Citation{}
	}
	if isNull(m.Metadata) {
		m.Metadata = json.RawMessage("{}")
	}
	if isNull(m.SourceSpan) {
		m.SourceSpan = nil
	}
	if isNull(m.ConfidenceSignals) {
		m.ConfidenceSignals = nil
	}
	for _, t := range []*time.Time{&m.CreatedAt, &m.UpdatedAt, &m.LastAccessedAt, &m.ExpiresAt, &m.ConfidenceDecayedAt} {
		*t = t.UTC().Truncate(time.Microsecond)
	}
	return m
}

func isNull(j json.RawMessage) bool {
	j = bytes.TrimSpace(j)
	return len(j) == 0 || string(j) == "null"
}

// Validate returns an [*InvalidError] for the first rule of the federation protocol that m breaks, after defaults.
func (m Memory) Validate() error {
	return m.withDefaults().validate()
}

func (m Memory) validate() error {
	if err := validID("id", m.ID); err != nil {
		return err
	}
	if err := validNamespace(m.Namespace); err != nil {
		return err
	}
	if err := validText("title", m.Title); err != nil {
		return err
	}
	if utf8.RuneCountInString(m.Title) > MaxTitleChars {
		return &InvalidError{"title", fmt.Sprintf("must have at most %d characters", MaxTitleChars)}
	}
	if err := validText("content", m.Content); err != nil {
		return err
	}
	if len(m.Content) > MaxContentBytes {
		return &InvalidError{"content", fmt.Sprintf("must have at most %d bytes", MaxContentBytes)}
	}
	for _, e := range [...]struct {
		field, value string
		known        []string
	}{
		{"tier", m.Tier, []string{"short", "mid", "long"}},
		{"source", m.Source, []string{
			"user", "nhi", "claude", "hook", "api", "cli", "import", "consolidation", "system", "chaos", "notify",
		}},
		{"memory_kind", m.MemoryKind, []string{
			"observation", "reflection", "persona", "concept", "entity", "claim", "relation", "event", "conversation", "decision",
		}},
		{"confidence_source", m.ConfidenceSource, []string{
			"caller_provided", "auto_derived", "calibrated", "decayed", "curator_derived",
		}},
	} {
		if !slices.Contains(e.known, e.value) {
			return &InvalidError{e.field, "must be one of " + strings.Join(e.known, ", ")}
		}
	}
	if m.Priority < 1 || m.Priority > 10 {
		return &InvalidError{"priority", "must be 1 to 10"}
	}
	if c := *m.Confidence; math.IsNaN(c) || c < 0 || c > 1 {
		return &InvalidError{"confidence", "must be a number from 0 to 1"}
	}
	if m.AccessCount < 0 {
		return &InvalidError{"access_count", "must not be negative"}
	}
	if m.ReflectionDepth < 0 {
		return &InvalidError{"reflection_depth", "must not be negative"}
	}
	return m.validateDetails()
}

// validateDetails checks the fields that hold lists, JSON and times.
func (m Memory) validateDetails() error {
	if len(m.Tags) > MaxTags {
		return &InvalidError{"tags", fmt.Sprintf("must be at most %d", MaxTags)}
	}
	for _, tag := range m.Tags {
		if err := validText("tags", tag); err != nil {
			return err
		}
		if len(tag) > MaxTagBytes {
			return &InvalidError{"tags", fmt.Sprintf("each must have at most %d bytes", MaxTagBytes)}
		}
	}
	if err := validObject("metadata", m.Metadata); err != nil {
		return err
	}
	if len(m.Metadata) > MaxMetadataBytes {
		return &InvalidError{"metadata", fmt.Sprintf("must have at most %d bytes", MaxMetadataBytes)}
	}
	if depth(m.Metadata) > MaxMetadataDepth {
		return &InvalidError{"metadata", fmt.Sprintf("must nest at most %d deep", MaxMetadataDepth)}
	}
	if len(m.Citations) > MaxCitations {
		return &InvalidError{"citations", fmt.Sprintf("must be at most %d", MaxCitations)}
	}
	for _, c := range m.Citations {
		if c.URI == "" || c.AccessedAt == "" {
			return &InvalidError{"citations", "each must have uri and accessed_at"}
		}
	}
	if m.SourceURI != "" {
		scheme, _, ok := strings.Cut(m.SourceURI, ":")
		if !ok || !slices.Contains([]string{"uri", "doc", "file"}, scheme) || utf8.RuneCountInString(m.SourceURI) > MaxSourceURIChars {
			return &InvalidError{"source_uri", fmt.Sprintf("must start with uri:, doc: or file: and have at most %d characters", MaxSourceURIChars)}
		}
	}
	if m.SourceSpan != nil {
		var span struct{ Start, End *int64 }
		if err := json.Unmarshal(m.SourceSpan, &span); err != nil || span.Start == nil || span.End == nil {
			return &InvalidError{"source_span", "must be an object with the integers start and end"}
		}
	}
	if m.ConfidenceSignals != nil {
		if err := validObject("confidence_signals", m.ConfidenceSignals); err != nil {
			return err
		}
	}
	if m.Embedding != nil {
		if err := m.Embedding.validate(); err != nil {
			return err
		}
	}
	for _, t := range []struct {
		field string
		at    time.Time
	}{
		{"created_at", m.CreatedAt},
		{"updated_at", m.UpdatedAt},
		{"last_accessed_at", m.LastAccessedAt},
		{"expires_at", m.ExpiresAt},
		{"confidence_decayed_at", m.ConfidenceDecayedAt},
	} {
		if y := t.at.Year(); y < 1 || y > 9999 {
			return &InvalidError{t.field, "must be in the years 1 to 9999"}
		}
	}
	return nil
}

func validID(field, id string) error {
	legal := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_:.@-", c) >= 0
	}
	if len(id) < 1 || len(id) > MaxIDBytes || slices.ContainsFunc([]byte(id), func(c byte) bool { return !legal(c) }) {
		return &InvalidError{field, fmt.Sprintf("must be 1 to %d of the characters A-Z a-z 0-9 _ : . @ -", MaxIDBytes)}
	}
	if strings.Contains(id, "..") {
		return &InvalidError{field, `must not contain ".."`}
	}
	return nil
}

func validNamespace(ns string) error {
	const field = "namespace"
	switch {
	case ns == "":
		return &InvalidError{field, "must not be empty"}
	case !utf8.ValidString(ns):
		return &InvalidError{field, "must be UTF-8"}
	case utf8.RuneCountInString(ns) > MaxNamespaceChars:
		return &InvalidError{field, fmt.Sprintf("must have at most %d characters", MaxNamespaceChars)}
	case strings.ContainsFunc(ns, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '\\' }):
		return &InvalidError{field, "must have no blank, backslash or control character"}
	}
	segments := strings.Split(ns, "/")
	if len(segments) > MaxSegments {
		return &InvalidError{field, fmt.Sprintf("must have at most %d segments", MaxSegments)}
	}
	for _, s := range segments {
		if s == "" || s == "." || s == ".." {
			return &InvalidError{field, `must have no empty segment, "." or ".."`}
		}
	}
	return nil
}

func validText(field, s string) error {
	switch {
	case !utf8.ValidString(s):
		return &InvalidError{field, "must be UTF-8"}
	case strings.TrimSpace(s) == "":
		return &InvalidError{field, "must not be empty"}
	case hasControl(s):
		return &InvalidError{field, "must have no control character but line feed and tab"}
	}
	return nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' })
}

// validUTF8 refuses what encoding/json would quietly replace.
func validUTF8(field, s string) error {
	if !utf8.ValidString(s) {
		return &InvalidError{field, "must be UTF-8"}
	}
	return nil
}

// validObject refuses what is no JSON object, and the escape that Postgres' jsonb cannot hold.
func validObject(field string, j json.RawMessage) error {
	trimmed := bytes.TrimSpace(j)
	if len(trimmed) == 0 || trimmed[0] != '{' || !json.Valid(trimmed) || !utf8.Valid(trimmed) {
		return &InvalidError{field, "must be a JSON object"}
	}
	if hasNUL(trimmed) {
		return &InvalidError{field, "must not contain the character U+0000"}
	}
	return nil
}

// hasNUL reports whether valid JSON text escapes U+0000: a \u0000 that is not itself behind a backslash.
func hasNUL(j []byte) bool {
	for i := 0; i+5 < len(j); i++ {
		if j[i] != '\\' {
			continue
		}
		if string(j[i:i+6]) == `\u0000` {
			return true
		}
		i++ // an escape of two bytes, or the start of another \u
	}
	return false
}

// depth is how deep valid JSON nests: a scalar is 0, {} is 1.
func depth(j []byte) int {
	deepest, now, text := 0, 0, false
	for i := 0; i < len(j); i++ {
		switch c := j[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// timeLayout is time as the protocol wants it, so that text order is time order at the peers.
const timeLayout = "2006-01-02T15:04:05.000000+00:00"

// body is the JSON object of m without created_at, updated_at and version, which the database adds under the row's lock.
func (m Memory) body() ([]byte, error) {
	b, err := marshal(struct {
		AccessCount         int64           `json:"access_count"`
		Citations           []Citation      `json:"citations"`
		Confidence          float64         `json:"confidence"`
		ConfidenceDecayedAt string          `json:"confidence_decayed_at,omitzero"`
		ConfidenceSignals   json.RawMessage `json:"confidence_signals,omitzero"`
		ConfidenceSource    string          `json:"confidence_source"`
		Content             string          `json:"content"`
		EntityID            string          `json:"entity_id,omitzero"`
		ExpiresAt           string          `json:"expires_at,omitzero"`
		ID                  string          `json:"id"`
		LastAccessedAt      string          `json:"last_accessed_at,omitzero"`
		MemoryKind          string          `json:"memory_kind"`
		Metadata            json.RawMessage `json:"metadata"`
		Namespace           string          `json:"namespace"`
		PersonaVersion      *int32          `json:"persona_version,omitzero"`
		Priority            int             `json:"priority"`
		ReflectionDepth     int32           `json:"reflection_depth"`
		Source              string          `json:"source"`
		SourceSpan          json.RawMessage `json:"source_span,omitzero"`
		SourceURI           string          `json:"source_uri,omitzero"`
		Tags                []string        `json:"tags"`
		Tier                string          `json:"tier"`
		Title               string          `json:"title"`
	}{
		m.AccessCount, m.Citations, *m.Confidence, wireTime(m.ConfidenceDecayedAt), m.ConfidenceSignals, m.ConfidenceSource, m.Content, m.EntityID,
		wireTime(m.ExpiresAt), m.ID, wireTime(m.LastAccessedAt), m.MemoryKind, m.Metadata, m.Namespace, m.PersonaVersion, m.Priority,
		m.ReflectionDepth, m.Source, m.SourceSpan, m.SourceURI, m.Tags, m.Tier, m.Title,
	})
	if err != nil {
		return nil, fmt.Errorf("encode memory %s: %w", m.ID, err)
	}
	return b, nil
}

func wireTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeLayout)
}

// marshal is json.Marshal without the escapes for HTML, which only make pushes larger.
func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

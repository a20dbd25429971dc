package config

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"quorumbox/internal/outbound"
	"quorumbox/internal/secret"
	"quorumbox/quorum"
)

// Key describes one setting.
type Key struct {
	// Name is the key with its sections: quorum.writes. A setting of one element of a list has the list's name with "[]" in it:
	// peers[].id.
	Name string
	// Env is the environment variable, empty for a setting of one element of a list.
	Env string
	// Default is the value without a file and environment, as it is written in YAML; "required" if there is none; another
	// key if that one's value is taken.
	Default string
	// Meaning is one line for the operator.
	Meaning string
}

// Keys returns every setting, in the order of the file.
func Keys() []Key { return keysIn(reflect.ValueOf(Default()), "") }

func keysIn(section reflect.Value, path string) []Key {
	var keys []Key
	for i := range section.NumField() {
		field, value := section.Type().Field(i), section.Field(i)
		name := joinPath(path, field.Tag.Get(keyTag))
		switch {
		case isSection(field.Type):
			keys = append(keys, keysIn(value, name)...)
			continue
		case isList(field.Type):
			meaning := field.Tag.Get("doc") + "; in the environment the whole list as YAML or JSON"
			keys = append(keys, Key{Name: name, Env: envName(name), Default: "[]", Meaning: meaning})
			keys = append(keys, keysIn(elementOf(section, field.Type.Elem()), name+"[]")...)
			continue
		}
		key := Key{Name: name, Env: envName(name), Default: field.Tag.Get("default"), Meaning: field.Tag.Get("doc")}
		if key.Default == "" {
			key.Default = scalar(value.Interface())
		}
		if strings.HasSuffix(path, "[]") {
			key.Env = ""
		}
		keys = append(keys, key)
	}
	return keys
}

func envName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "__"))
}

// Print writes every setting as a YAML file that [Load] reads, with secrets as [secret.Redacted] (they have to be filled in
// again). Files that hold secrets are named, not opened.
func (c Config) Print(w io.Writer) error {
	var b strings.Builder
	printSection(&b, reflect.ValueOf(c), "")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("config: print: %w", err)
	}
	return nil
}

func printSection(b *strings.Builder, section reflect.Value, indent string) {
	for i := range section.NumField() {
		key, value := section.Type().Field(i).Tag.Get(keyTag), section.Field(i)
		if isSection(value.Type()) {
			fmt.Fprintf(b, "%s%s:\n", indent, key)
			printSection(b, value, indent+"  ")
			continue
		}
		switch {
		case !isList(value.Type()):
			fmt.Fprintf(b, "%s%s: %s\n", indent, key, scalar(value.Interface()))
		case value.Len() == 0:
			fmt.Fprintf(b, "%s%s: []\n", indent, key)
		default:
			fmt.Fprintf(b, "%s%s:\n", indent, key)
			for j := range value.Len() {
				var one strings.Builder
				printSection(&one, value.Index(j), indent+"    ")
				fmt.Fprintf(b, "%s  - %s", indent, strings.TrimLeft(one.String(), " "))
			}
		}
	}
}

// scalar returns a setting as it is written in YAML.
func scalar(value any) string {
	switch value := value.(type) {
	case secret.Secret:
		if value.IsZero() {
			return `""`
		}
		return strconv.Quote(secret.Redacted)
	case string:
		return strconv.QuoteToASCII(value) // Go's escapes are all YAML's too (YAML 1.2.2, 5.7)
	case int:
		return strconv.Itoa(value)
	case bool:
		return strconv.FormatBool(value)
	case float64:
		return strconv.FormatFloat(value, 'g', -1, 64)
	case outbound.Action:
		if value != outbound.Allow && value != outbound.Deny {
			return strconv.QuoteToASCII(string(value))
		}
		return string(value)
	case time.Duration:
		return durationText(value)
	case quorum.Writes:
		return value.String()
	case slog.Level:
		return strings.ToLower(value.String())
	case LogFormat:
		if value != LogJSON && value != LogText {
			return strconv.QuoteToASCII(string(value))
		}
		return string(value)
	case []netip.Prefix:
		texts := make([]string, len(value))
		for i, prefix := range value {
			texts[i] = strconv.Quote(prefix.String())
		}
		return "[" + strings.Join(texts, ", ") + "]"
	default:
		panic(fmt.Sprintf("config: no text for %T", value))
	}
}

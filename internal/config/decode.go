package config

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"quorumbox/internal/outbound"
	"quorumbox/internal/secret"
	"quorumbox/quorum"
)

// This file turns the parsed YAML into a Config. It walks the struct itself instead of using mapstructure, whose errors
// quote the values that do not fit: a connection URL that was written as a list would be in the log.

// keyTag is the struct tag that holds a setting's key.
const keyTag = "koanf"

// isSection reports whether t is a struct of settings, and not a setting that happens to be a struct.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t.NumField() > 0 && t.Field(0).Tag.Get(keyTag) != ""
}

// keysOf returns the keys of a section and the types of their fields.
func keysOf(t reflect.Type) map[string]reflect.Type {
	keys := map[string]reflect.Type{}
	for field := range t.Fields() {
		keys[field.Tag.Get(keyTag)] = field.Type
	}
	return keys
}

// checkKeys notes each key of raw that is no setting, and each section that is none. source names where raw is from.
func (p *problems) checkKeys(raw map[string]any, source string) {
	p.checkSection(reflect.TypeFor[Config](), raw, "", source)
}

func (p *problems) checkSection(t reflect.Type, raw any, path, source string) {
	if raw == nil {
		return // a heading whose keys are all commented out
	}
	known := keysOf(t)
	section, ok := raw.(map[string]any)
	if !ok {
		p.addf("%s: %s is %s: want keys below it: %s", source, path, kindOf(raw), strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		return
	}
	for _, key := range slices.Sorted(maps.Keys(section)) {
		fieldType, ok := known[key]
		if !ok {
			p.addf("%s: %s is no setting: %s", source, joinPath(path, safeName(key)), hint(key, slices.Collect(maps.Keys(known))))
			continue
		}
		switch {
		case isSection(fieldType):
			p.checkSection(fieldType, section[key], joinPath(path, key), source)
		case isList(fieldType):
			p.checkList(fieldType.Elem(), section[key], joinPath(path, key), source)
		}
	}
}

// decode lays raw over cfg. Keys and sections that [problems.checkKeys] has noted are passed over. envOf maps a key to
// the environment variable that set it.
func (p *problems) decode(cfg *Config, raw map[string]any, envOf map[string]string) {
	p.decodeSection(reflect.ValueOf(cfg).Elem(), raw, "", envOf)
}

func (p *problems) decodeSection(v reflect.Value, raw any, path string, envOf map[string]string) {
	section, ok := raw.(map[string]any)
	if !ok {
		return
	}
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get(keyTag)
		value, ok := section[key]
		if !ok || value == nil {
			continue
		}
		fieldPath := joinPath(path, key)
		if isSection(v.Field(i).Type()) {
			p.decodeSection(v.Field(i), value, fieldPath, envOf)
			continue
		}
		if isList(v.Field(i).Type()) {
			p.decodeList(v, i, value, fieldPath)
			continue
		}
		if err := set(v.Field(i).Addr().Interface(), value); err != nil {
			if env := envOf[fieldPath]; env != "" {
				fieldPath = env
			}
			p.addf("%s %w", fieldPath, err)
		}
	}
}

// set stores raw, a value from YAML or the text of an environment variable, in the setting that target points to.
func set(target, raw any) error {
	switch target := target.(type) {
	case *int:
		return setInt(target, raw)
	case *bool:
		return setBool(target, raw)
	case *float64:
		return setFloat(target, raw)
	case *[]netip.Prefix:
		return setPrefixes(target, raw)
	case *quorum.Writes:
		if n, ok := raw.(int); ok {
			raw = strconv.Itoa(n)
		}
	case *secret.Secret:
		text, ok := raw.(string)
		if !ok {
			return errors.New("is not text: put it in quotes")
		}
		*target = secret.New(text)
		return nil
	}
	text, ok := raw.(string)
	if !ok {
		return fmt.Errorf("is %s: %s", show(raw), wanted(target))
	}
	if !setText(target, text) {
		return fmt.Errorf("is %s: %s", show(raw), wanted(target))
	}
	return nil
}

// setText stores text in a setting that is written as one word, and reports whether it fits.
func setText(target any, text string) bool {
	var err error
	switch target := target.(type) {
	case *string:
		*target = text
	case *time.Duration:
		var d time.Duration
		if d, err = time.ParseDuration(text); err == nil {
			*target = d
		}
	case *quorum.Writes:
		err = target.UnmarshalText([]byte(text))
	case *LogFormat:
		*target = LogFormat(text)
	case *outbound.Action:
		*target = outbound.Action(text)
	case *slog.Level:
		if !slices.Contains([]string{"debug", "info", "warn", "error"}, text) {
			return false
		}
		err = target.UnmarshalText([]byte(text))
	default:
		panic(fmt.Sprintf("config: no decoder for %T", target))
	}
	return err == nil
}

// wanted says what a setting is written like.
func wanted(target any) string {
	switch target.(type) {
	case *time.Duration:
		return "want a duration with its unit, such as 250ms, 2s or 10m"
	case *quorum.Writes:
		return "want all, majority or a number of at least 1 that counts the local commit"
	case *slog.Level:
		return "want debug, info, warn or error"
	default:
		return "want text: put it in quotes"
	}
}

func setInt(target *int, raw any) error {
	switch raw := raw.(type) {
	case int:
		*target = raw
		return nil
	case string:
		if n, err := strconv.Atoi(raw); err == nil {
			*target = n
			return nil
		}
	}
	return fmt.Errorf("is %s: want a whole number", show(raw))
}

func setBool(target *bool, raw any) error {
	switch raw {
	case true, "true":
		*target = true
	case false, "false":
		*target = false
	default:
		return fmt.Errorf("is %s: want true or false", show(raw))
	}
	return nil
}

func setPrefixes(target *[]netip.Prefix, raw any) error {
	list, ok := raw.([]any)
	if !ok {
		return fmt.Errorf("is %s: want a list of networks, such as [10.0.0.0/8]", show(raw))
	}
	var prefixes []netip.Prefix
	for _, item := range list {
		text, _ := item.(string)
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
				return fmt.Errorf("has %s: want a network; for this address alone write %s/%d", show(item), addr, addr.BitLen())
			}
			return fmt.Errorf("has %s: want a network such as 10.0.0.0/8 or fd00::/8", show(item))
		}
		prefixes = append(prefixes, prefix)
	}
	*target = prefixes
	return nil
}

// show returns a value that is no secret for an error text, cut to a bearable length.
func show(raw any) string {
	switch raw := raw.(type) {
	case string:
		if raw == "" {
			return "empty"
		}
		return fmt.Sprintf("%.60q", raw)
	case int, int64, uint64, float64, bool:
		return fmt.Sprint(raw)
	default:
		return kindOf(raw)
	}
}

// kindOf returns what sort of YAML value raw is.
func kindOf(raw any) string {
	switch raw.(type) {
	case nil:
		return "empty"
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	default:
		return "a single value"
	}
}

func joinPath(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

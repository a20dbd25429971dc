package config

import (
	"fmt"
	"maps"
	"reflect"
	"strings"

	"quorumbox/internal/outbound"
)

// This file has what is special about lists of sections: peers, quorum.namespaces and outbound.rules.

// isList reports whether t is a list of sections.
func isList(t reflect.Type) bool { return t.Kind() == reflect.Slice && isSection(t.Elem()) }

// required is the "default" tag of a setting that has none.
const required = "required"

// requiredIn returns the keys that each element of a list of sections of type t has to have.
func requiredIn(t reflect.Type) []string {
	var keys []string
	for field := range t.Fields() {
		if field.Tag.Get("default") == required {
			keys = append(keys, field.Tag.Get(keyTag))
		}
	}
	return keys
}

// checkList notes what is wrong with the list of sections of type t at path.
func (p *problems) checkList(t reflect.Type, raw any, path, source string) {
	if raw == nil {
		return
	}
	wanted := strings.Join(requiredIn(t), " and ")
	list, ok := raw.([]any)
	if !ok {
		p.addf("%s: %s is %s: want a list, each with %s", source, path, kindOf(raw), wanted)
		return
	}
	for i, element := range list {
		elementPath := fmt.Sprintf("%s[%d]", path, i)
		if element == nil {
			p.addf("%s: %s is empty: give it %s, or remove it", source, elementPath, wanted)
			continue
		}
		p.checkSection(t, element, elementPath, source)
	}
}

// decodeList stores the list raw in the field of a section. Fields before it have been decoded.
func (p *problems) decodeList(section reflect.Value, field int, raw any, path string) {
	list, _ := raw.([]any)
	target := section.Field(field)
	target.SetZero()
	if len(list) == 0 {
		return
	}
	target.Set(reflect.MakeSlice(target.Type(), len(list), len(list)))
	for i := range list {
		target.Index(i).Set(elementOf(section, target.Type().Elem()))
		p.decodeSection(target.Index(i), list[i], fmt.Sprintf("%s[%d]", path, i), nil)
	}
}

// elementOf returns an element of type t, in a list of the section, that has none of its settings written down.
func elementOf(section reflect.Value, t reflect.Type) reflect.Value {
	switch t {
	case reflect.TypeFor[Peer]():
		return reflect.ValueOf(DefaultPeer())
	case reflect.TypeFor[NamespaceRule]():
		if q, ok := section.Interface().(Quorum); ok {
			return reflect.ValueOf(NamespaceRule{Writes: q.Writes, AckTimeout: q.AckTimeout})
		}
	case reflect.TypeFor[OutboundRule]():
		return reflect.ValueOf(OutboundRule{Scheme: outbound.Any})
	}
	panic(fmt.Sprintf("config: no defaults for %s", t))
}

// listsIn returns the keys of a section that are lists of sections, and the types of their elements.
func listsIn(t reflect.Type, path string) map[string]reflect.Type {
	lists := map[string]reflect.Type{}
	for key, fieldType := range keysOf(t) {
		switch {
		case isList(fieldType):
			lists[joinPath(path, key)] = fieldType.Elem()
		case isSection(fieldType):
			maps.Copy(lists, listsIn(fieldType, joinPath(path, key)))
		}
	}
	return lists
}

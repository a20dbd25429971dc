package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
)

const (
	// EnvPrefix starts the name of every environment variable that is a setting. The rest is the key in upper case, with
	// "__" between levels: QUORUMBOX_QUORUM__WRITES.
	EnvPrefix = "QUORUMBOX_"
	// maxFileBytes bounds the configuration file; 64 peers need about 20 KiB.
	maxFileBytes = 1 << 20
)

// Load returns the settings: the defaults, the YAML file at path over them (none if path is empty), and the environment
// over that. environ is in the form of [os.Environ]. The result has passed [Config.Validate].
//
// A variable named QUORUMBOX_... must be a setting. QUORUMBOX_PEERS and those of the other lists hold the whole list as YAML or
// JSON. Some settings have another name (see aliases), which counts unless it is empty or ours is set: DATABASE_URL is
// database.url; and a connection URL in the environment replaces either form of it in the file.
//
// The error names everything that is wrong at once ([errors.Join]), each with its key, the rule and what to do. No
// secret is part of it. Beside an error stand the settings as far as they could be read, which are good for nothing but to look
// for what else is wrong.
func Load(path string, environ []string) (Config, error) {
	var p problems
	file := koanf.New(".")
	if path != "" {
		raw, err := readFile(path)
		if err != nil {
			return Config{}, err
		}
		if err := file.Load(rawbytes.Provider(raw), yaml.Parser()); err != nil {
			return Config{}, fmt.Errorf("config: %s is not valid YAML: %s", path, safeYAMLError(err))
		}
		p.checkKeys(file.Raw(), path)
	}

	names := envNames{set: map[string]string{}}
	environment := koanf.New(".")
	if err := environment.Load(env.Provider(".", names.options(&p, environ)), nil); err != nil {
		return Config{}, fmt.Errorf("config: read environment: %w", err)
	}
	if environment.Exists("database.url") || environment.Exists("database.url_file") {
		file.Delete("database.url")
		file.Delete("database.url_file")
	}
	if err := file.Merge(environment); err != nil {
		return Config{}, fmt.Errorf("config: lay environment over file: %w", err)
	}

	cfg := Default()
	p.decode(&cfg, file.Raw(), names.set)
	p.add(cfg.Validate())
	if err := errors.Join(p.errs...); err != nil {
		return cfg, fmt.Errorf("config: %w", err)
	}
	return cfg, nil
}

// problems collects what is wrong, so that an operator fixes it in one go.
type problems struct{ errs []error }

func (p *problems) add(err error) {
	if err != nil {
		p.errs = append(p.errs, err)
	}
}

func (p *problems) addf(format string, args ...any) { p.add(fmt.Errorf(format, args...)) }

// readFile returns the text of the one YAML document in the file.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return nil, fmt.Errorf("config: open configuration file: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("config: read configuration file: %w", err)
	}
	if len(raw) > maxFileBytes {
		return nil, fmt.Errorf("config: %s is larger than %d bytes: is it the configuration file?", path, maxFileBytes)
	}
	if line := secondDocument(string(raw)); line > 0 {
		return nil, fmt.Errorf("config: %s: line %d starts a second YAML document, which would be ignored: put everything into one", path, line)
	}
	return raw, nil
}

// secondDocument returns the number of the line that starts a second YAML document, or 0. A line that starts with "---"
// is always a marker (YAML 1.2.2, 9.1.2).
func secondDocument(text string) int {
	content := false
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimRight(line, "\r")
		marker := line == "---" || strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "---\t")
		if marker && content {
			return i + 1
		}
		trimmed := strings.TrimSpace(line)
		content = content || marker || trimmed != "" && trimmed[0] != '#' && trimmed[0] != '%'
	}
	return 0
}

// safeYAMLError returns err's text without the pieces of the file that the parser quotes: they may be secrets.
func safeYAMLError(err error) string {
	quoted := regexp.MustCompile("(?s)`.*`|'.*'|\".*\"")
	return quoted.ReplaceAllString(strings.TrimPrefix(err.Error(), "yaml: "), "…")
}

// envNames says which environment variable set a key.
type envNames struct{ set map[string]string }

// options returns how koanf reads environ: known names only, and the list of peers parsed.
func (n envNames) options(p *problems, environ []string) env.Opt {
	keys := map[string]string{} // variable -> key
	for _, k := range Keys() {
		if k.Env != "" {
			keys[k.Env] = k.Name
		}
	}
	lists := listsIn(reflect.TypeFor[Config](), "")
	return env.Opt{
		EnvironFunc: func() []string { return withAliases(environ) },
		Prefix:      EnvPrefix,
		TransformFunc: func(name, value string) (string, any) {
			key, known := keys[name]
			if !known {
				p.addf("environment variable %s is no setting: %s", safeName(name), hint(name, slices.Collect(maps.Keys(keys))))
				return "", nil
			}
			n.set[key] = name
			element, isList := lists[key]
			if !isList {
				return key, value
			}
			parsed, err := yaml.Parser().Unmarshal([]byte("list:\n  " + strings.ReplaceAll(strings.TrimSpace(value), "\n", "\n  ")))
			if err != nil {
				p.addf("%s is not valid YAML or JSON: %s", name, safeYAMLError(err))
				return "", nil
			}
			p.checkList(element, parsed["list"], key, name)
			return key, parsed["list"]
		},
	}
}

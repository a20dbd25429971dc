package config

import (
	"slices"
	"strings"
)

// alias is another name of an environment variable.
type alias struct {
	name     string
	variable string
	unless   []string // variables that win over it
}

// aliases are the names that others have given to our settings: hosting platforms, and the reference sender (wire protocol,
// "x-memory-cred" and "Keys on disk and sender identity").
func aliases() []alias {
	const url, file = EnvPrefix + "DATABASE__URL", EnvPrefix + "DATABASE__URL_FILE"
	const sender, cred, chain = EnvPrefix + "SENDER_ID", EnvPrefix + "CREDENTIAL_FILE", EnvPrefix + "CREDENTIAL_CHAIN_FILE"
	return []alias{
		{"DATABASE_URL", url, []string{url, file}},
		{"AI_MEMORY_FED_IDENTITY", sender, []string{sender}},
		{"AI_MEMORY_FED_CRED_PATH", cred, []string{cred}},
		{"AI_MEMORY_FED_CRED_CHAIN_PATH", chain, []string{chain}},
	}
}

// withAliases returns environ with the aliases under our own names, unless ours are there.
func withAliases(environ []string) []string {
	values := map[string]string{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		values[name] = value
	}
	result := slices.Clone(environ)
	for _, a := range aliases() {
		overruled := slices.ContainsFunc(a.unless, func(name string) bool {
			_, set := values[name]
			return set
		})
		if value := values[a.name]; value != "" && !overruled {
			result = append(result, a.variable+"="+value)
		}
	}
	return result
}

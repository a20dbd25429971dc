package integration

import (
	"encoding/json"
	"strings"
	"testing"
)

// container is the part of `docker inspect` that the tests look at.
type container struct {
	Config struct {
		User   string
		Env    []string
		Labels map[string]string
	}
	State struct {
		Status   string
		ExitCode int
	}
	HostConfig struct {
		ReadonlyRootfs bool
		Privileged     bool
		CapAdd         []string
		CapDrop        []string
		SecurityOpt    []string
		PortBindings   map[string][]struct {
			HostIP string `json:"HostIp"`
		}
	}
}

// inspect looks at all containers of the project.
func (c *composition) inspect(t *testing.T) []container {
	t.Helper()
	return c.inspectThese(t, strings.Fields(c.compose(t, "ps", "--all", "--quiet"))...)
}

func (c *composition) inspectThese(t *testing.T, ids ...string) []container {
	t.Helper()
	var list []container
	if err := json.Unmarshal([]byte(c.docker(t, append([]string{"inspect"}, ids...)...)), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

//go:build faults

package fault

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Enabled says whether this build knows faults.
const Enabled = true

// Hit looks the point up in FAULTS, such as "fan_out_acked=kill@3,retry_acked=sleep:2s": kill ends the process with SIGKILL at the
// third hit (the first without "@"), sleep delays every hit from that one on. A point or action that is not known ends the process.
func Hit(p Point) {
	f := rules()[p]
	if f == nil {
		return
	}
	f.mu.Lock()
	f.hits++
	due := f.hits >= f.at
	f.mu.Unlock()
	switch {
	case !due:
	case f.sleep > 0:
		time.Sleep(f.sleep)
	default:
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}

type rule struct {
	at    int
	sleep time.Duration

	mu   sync.Mutex
	hits int
}

//nolint:gochecknoglobals // parsed once: the environment of the process does not change
var rules = sync.OnceValue(func() map[Point]*rule {
	parsed := map[Point]*rule{}
	for _, text := range strings.FieldsFunc(os.Getenv("FAULTS"), func(r rune) bool { return r == ',' }) {
		point, r, err := parse(text)
		if err != nil {
			fmt.Fprintf(os.Stderr, "FAULTS: %q: %v\n", text, err)
			os.Exit(2)
		}
		parsed[point] = r
	}
	return parsed
})

func parse(text string) (Point, *rule, error) {
	name, action, ok := strings.Cut(text, "=")
	if !ok {
		return "", nil, fmt.Errorf("want point=kill@n or point=sleep:duration")
	}
	known := false
	for _, p := range Points() {
		known = known || p == Point(name)
	}
	if !known {
		return "", nil, fmt.Errorf("unknown point, want one of %v", Points())
	}
	action, count, counted := strings.Cut(action, "@")
	r := &rule{at: 1}
	if counted {
		n, err := strconv.Atoi(count)
		if err != nil || n < 1 {
			return "", nil, fmt.Errorf("want a count of 1 or more after @")
		}
		r.at = n
	}
	if d, ok := strings.CutPrefix(action, "sleep:"); ok {
		var err error
		if r.sleep, err = time.ParseDuration(d); err != nil || r.sleep <= 0 {
			return "", nil, fmt.Errorf("want a duration above 0 after sleep:")
		}
	} else if action != "kill" {
		return "", nil, fmt.Errorf("want kill or sleep:duration")
	}
	return Point(name), r, nil
}

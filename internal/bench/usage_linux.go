package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of the times in /proc/<pid>/stat (USER_HZ, 100 a second on all Linux architectures that Go runs on).
const clockTick = 10 * time.Millisecond

// stat is a part of /proc/<pid>/stat (proc_pid_stat(5)).
type stat struct {
	parent   int
	own      time.Duration // user and system time
	children time.Duration // that of children that have ended and were waited for
}

func readStat(pid int) (stat, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	return parseStat(raw)
}

// parseStat reads the fields after the program's name, which may hold blanks and brackets itself.
func parseStat(raw []byte) (stat, error) {
	end := bytes.LastIndexByte(raw, ')')
	fields := strings.Fields(string(raw[end+1:]))
	const state, ppid, utime, stime, cutime, cstime = 3, 4, 14, 15, 16, 17 // numbers of the manual
	if end < 0 || len(fields) <= cstime-state {
		return stat{}, fmt.Errorf("%q is no process status", raw)
	}
	var n [cstime + 1]int64
	for _, i := range []int{ppid, utime, stime, cutime, cstime} {
		v, err := strconv.ParseInt(fields[i-state], 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("field %d of a process status: %w", i, err)
		}
		n[i] = v
	}
	return stat{
		parent:   int(n[ppid]),
		own:      time.Duration(n[utime]+n[stime]) * clockTick,
		children: time.Duration(n[cutime]+n[cstime]) * clockTick,
	}, nil
}

// cpuTime is the processor time that the process has used so far.
func cpuTime(pid int) (time.Duration, error) {
	s, err := readStat(pid)
	return s.own, err
}

// serverCPUTime is that of a Postgres server: its postmaster, the processes it has now and those it had.
func serverCPUTime(postmaster int) (time.Duration, error) {
	s, err := readStat(postmaster)
	if err != nil {
		return 0, err
	}
	total := s.own + s.children
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, path := range paths {
		raw, err := os.ReadFile(path) //nolint:gosec // G304: a path of the kernel's
		if err != nil {
			continue // ended meanwhile
		}
		if child, err := parseStat(raw); err == nil && child.parent == postmaster {
			total += child.own
		}
	}
	return total, nil
}

// peakRSS is the most memory that the process has had resident, in bytes.
func peakRSS(pid int) (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d: no VmHWM in its status", pid)
}

// cpuModel is the name of the processor.
func cpuModel() string {
	raw, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown CPU"
	}
	for line := range strings.Lines(string(raw)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown CPU"
}

// busyTime is the processor time that the whole machine has used, that of the hypervisor's other guests included.
func busyTime() (time.Duration, error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseBusy(string(raw))
}

// parseBusy adds up the first line of /proc/stat (proc_stat(5)): all but idle, iowait and the guests' share, which user and nice hold already.
func parseBusy(text string) (time.Duration, error) {
	first, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(first)
	const user, idle, iowait, steal = 1, 4, 5, 8
	if len(fields) <= steal || fields[0] != "cpu" {
		return 0, fmt.Errorf("%q is no line of processor times", first)
	}
	var total time.Duration
	for i := user; i <= steal; i++ {
		if i == idle || i == iowait {
			continue
		}
		v, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("field %d of the processor times: %w", i, err)
		}
		total += time.Duration(v) * clockTick
	}
	return total, nil
}

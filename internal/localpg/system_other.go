//go:build unix && !linux

package localpg

// isRoomyMemory knows of no file system in memory on these systems.
func isRoomyMemory(string) bool { return false }

//go:build !faults

package fault

// Enabled says whether this build knows faults.
const Enabled = false

// Hit does nothing in this build.
func Hit(Point) {}

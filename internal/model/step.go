package model

import (
	"fmt"
	"strings"
)

// step names what happened, for a trace.
type step struct {
	act    act
	worker int
	peer   int
	from   uint8
	to     uint8
	items  items
	ids    ids
}

type act uint8

const (
	commits act = iota
	dispatches
	startsFanOut
	startsFanOutWithLagging
	startsRetry
	startsRepair
	letsGo
	sends
	isAcked
	fails
	hasNoAnswer
	hasNoAnswerAgain
	appliesOne
	arrives
	isLost
	hears
	takesLane
	leavesLane
	recordsDecided
	recordsVerdictOnly
	records
	recordsNothing
	writesDoubts
	isKilled
	losesBatch
	losesLane
	repairIsDue
	doubtIsDropped
	repairIsDueAgain
)

// forward reports whether a step is more than a failure.
func (s step) forward() bool {
	switch s.act {
	case fails, hasNoAnswer, hasNoAnswerAgain, isKilled:
		return false
	default:
		return true
	}
}

// tell puts a step in words.
func (m *model) tell(s step) string {
	w, p := fmt.Sprintf("worker %d", s.worker+1), fmt.Sprintf("peer %d", s.peer+1)
	push := fmt.Sprintf("the push [%s] to %s", m.tellItems(s.items), p)
	switch s.act {
	case commits:
		return fmt.Sprintf("writer commits entry %d: %s", s.to, m.tellItems(m.log[s.to-1].item(s.to)))
	case dispatches:
		return fmt.Sprintf("relay makes batch %d of the entries up to %d", s.from, s.to)
	case startsFanOut:
		return fmt.Sprintf("%s starts the fan-out of batch %d", w, s.to)
	case startsFanOutWithLagging:
		return fmt.Sprintf("%s starts the fan-out of batch %d and takes lagging lanes along", w, s.to)
	case startsRetry:
		return fmt.Sprintf("%s starts a retry to %s: batches %d to %d", w, p, s.from+1, s.to)
	case startsRepair:
		return fmt.Sprintf("%s starts a repair of %s: %s", w, p, tellIDs(s.ids))
	case letsGo:
		return fmt.Sprintf("a retry finds that %s has everything and removes its row", p)
	case sends:
		return fmt.Sprintf("%s sends %s", w, push)
	case isAcked:
		return fmt.Sprintf("%s is applied and acknowledged to %s", push, w)
	case fails:
		return fmt.Sprintf("%s fails: %s knows that it is not applied", push, w)
	case hasNoAnswer:
		return fmt.Sprintf("%s has no answer: %s gives it up, it is still on its way", push, w)
	case hasNoAnswerAgain:
		return fmt.Sprintf("%s has no answer: %s tries once more, the first is still on its way", push, w)
	case appliesOne:
		return fmt.Sprintf("of %s the first item is applied", push)
	case arrives:
		return fmt.Sprintf("%s arrives late and is applied", push)
	case isLost:
		return push + " is lost"
	case hears:
		return fmt.Sprintf("%s sees that %s has got batch %d", w, p, s.to)
	case takesLane:
		return fmt.Sprintf("%s, which waited for it, takes the lane of %s from batch %d", w, p, s.from+1)
	case leavesLane:
		return fmt.Sprintf("%s waits for the lane of %s no longer", w, p)
	case recordsDecided:
		return fmt.Sprintf("%s records the verdict of batch %d and notes who has not answered yet", w, s.to)
	case recordsVerdictOnly:
		return fmt.Sprintf("%s records the verdict of batch %d alone", w, s.to)
	case records:
		return w + " records what came of its job"
	case recordsNothing:
		return w + " finds its lease gone and records nothing"
	case writesDoubts:
		return w + " writes its doubts down"
	case isKilled:
		return w + " is killed"
	case losesBatch:
		return fmt.Sprintf("the lease of batch %d is over: a new fan-out is made", s.to)
	case losesLane:
		return fmt.Sprintf("the lease of the lane of %s is over: a new retry is made", p)
	case repairIsDue:
		if s.ids == 0 {
			return fmt.Sprintf("Z after: the doubt about %s, batches %d to %d, is forgotten, since nothing came later", p, s.from+1, s.to)
		}
		return fmt.Sprintf("Z after: the doubt about %s, batches %d to %d, becomes a repair of %s", p, s.from+1, s.to, tellIDs(s.ids))
	case doubtIsDropped:
		return fmt.Sprintf("Z after: the doubt about %s, batches %d to %d, is dropped, since it is pushed again anyway", p, s.from+1, s.to)
	case repairIsDueAgain:
		return fmt.Sprintf("Z after: the repair of %s of %s is due again", p, tellIDs(s.ids))
	}
	return "?"
}

func (m *model) tellItems(l items) string {
	var words []string
	for ; l != 0; l = l.rest() {
		if item := l.first(); item >= deletion {
			words = append(words, "delete "+tellIDs(1<<(item-deletion)))
		} else {
			words = append(words, fmt.Sprintf("store %s, version %d", tellIDs(idBit(m.log[item-1].id)), item))
		}
	}
	return strings.Join(words, "; ")
}

func tellIDs(set ids) string {
	return [...]string{"nothing", "a", "b", "a and b"}[set]
}

func (m *model) tellMemory(at memory) string {
	if at == (memory{}) {
		return "nothing"
	}
	if m.log[at.version-1].id != at.id {
		return fmt.Sprintf("%s with the content of %s, version %d", tellIDs(idBit(at.id)), tellIDs(idBit(m.log[at.version-1].id)), at.version)
	}
	return fmt.Sprintf("%s, version %d", tellIDs(idBit(at.id)), at.version)
}

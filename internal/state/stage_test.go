package state_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/internal/state"
)

func TestStage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	next := func(r *record) error { *r = whole(r.Seq + 1); return nil }
	_, err := s.Stage("b", next)
	wantNotFound(t, err)
	must(t, s.Put("a", whole(1)))
	staged, err := s.Stage("a", next)
	must(t, err)
	if got, err := s.Get("a"); err != nil || got != whole(1) {
		t.Errorf("before it is in force: %d, %v", got.Seq, err)
	}
	if is, err := os.ReadFile(staged.Path); err != nil || !bytes.Equal(is, staged.Is) {
		t.Errorf("what is in force is not what it says: %v", err)
	}
	must(t, os.Rename(staged.New, staged.Path))
	must(t, s.Settle("a"))
	must(t, s.Drop(staged)) // of which nothing is left
	if got, err := s.Get("a"); err != nil || got != whole(2) {
		t.Errorf("in force: %d, %v", got.Seq, err)
	}
	staged, err = s.Stage("a", next)
	must(t, err)
	must(t, s.Drop(staged))
	refusal := errors.New("no")
	if _, err := s.Stage("a", func(*record) error { return refusal }); !errors.Is(err, refusal) {
		t.Errorf("refused: %v", err)
	}
	if got, err := s.Get("a"); err != nil || got != whole(2) {
		t.Errorf("dropped: %d, %v", got.Seq, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "a", ".record-*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestStageOfDamagedRecord(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	must(t, s.Put("a", whole(1)))
	must(t, os.WriteFile(filepath.Join(dir, "a", "record.json"), []byte("{"), 0o600))
	_, err := s.Stage("a", func(*record) error { return nil })
	if !errdefs.IsDataLoss(err) {
		t.Errorf("got %v", err)
	}
	var none state.Staged
	must(t, s.Drop(none))
}

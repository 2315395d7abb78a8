package release

import (
	"context"
	"errors"
	"testing"
)

func TestSHA256FileContext(t *testing.T) {
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := SHA256File(ctx, "release_test.go"); !errors.Is(err, stop) {
		t.Errorf("error %v, want %v", err, stop)
	}
}

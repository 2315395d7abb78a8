package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"pretag/build/internal/text"
)

// A Stage is what a target does.
type Stage func(ctx context.Context, c Config, ui *UI) error

// Run reads the configuration from the environment and runs a stage on this
// process's terminal. SIGINT and SIGTERM end the stage, which cleans up; the
// error then is an Interrupted.
func Run(ctx context.Context, getenv func(string) string, need Need, stage Stage) error {
	c, err := FromEnv(getenv, need)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	mage := ctx // which mage cancels at SIGINT (mage v1.17.2, mage/template.go)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case received := <-signals:
			cancel(Interrupted{received.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()
	ui := Terminal()
	if warning := c.Version.RevisionWarning(); warning != "" {
		ui.Warn("%s", warning)
	}
	err = stage(ctx, c, ui)
	if errors.Is(mage.Err(), context.Canceled) {
		return Interrupted{syscall.SIGINT}
	}
	if interrupted := (Interrupted{}); errors.As(context.Cause(ctx), &interrupted) {
		return interrupted
	}
	if err != nil && text.Visible(err.Error()) != err.Error() {
		return errors.New(text.Visible(err.Error()))
	}
	return err
}

// Interrupted says that a signal ended the work.
type Interrupted struct{ Signal syscall.Signal }

func (i Interrupted) Error() string {
	return fmt.Sprintf("ended by signal: %s; what was whole before is untouched", i.Signal)
}

// ExitStatus is the shell's for a process that a signal ended (POSIX sh 2.8.2).
// Mage takes it as its own.
func (i Interrupted) ExitStatus() int { return 128 + int(i.Signal) }

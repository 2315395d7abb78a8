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

// A Stage is the work of a target.
type Stage func(ctx context.Context, c Config, ui *UI) error

// Run reads the configuration from environ and runs a stage on this process's
// terminal. args are the arguments of the process, which name the target. SIGINT and
// SIGTERM end the stage, which cleans up; the error is then an Interrupted.
func Run(ctx context.Context, args, environ []string, need Need, stage Stage) error {
	if err := checkArguments(args); err != nil {
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
	err := run(ctx, environ, need, stage)
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

// run is Run without signals.
func run(ctx context.Context, environ []string, need Need, stage Stage) error {
	ui := Terminal()
	c, err := FromEnv(ctx, environ, need)
	for _, warning := range c.Warnings { // they may explain the error
		ui.Warn("%s", warning)
	}
	if err != nil {
		return err
	}
	return stage(ctx, c, ui)
}

// Interrupted is the error of a stage that a signal ended.
type Interrupted struct{ Signal syscall.Signal }

func (i Interrupted) Error() string {
	return fmt.Sprintf("interrupted by signal: %s; files that were complete before are unchanged", i.Signal)
}

// ExitStatus returns the status of a shell for a process that a signal ended
// (POSIX sh 2.8.2). Mage exits with it.
func (i Interrupted) ExitStatus() int { return 128 + int(i.Signal) }

// isInterrupt reports whether a signal caused the error.
func isInterrupt(err error) bool {
	return errors.Is(err, context.Canceled) || errors.As(err, &Interrupted{})
}

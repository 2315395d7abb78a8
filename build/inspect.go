package build

import "context"

func Inspect(ctx context.Context, file string, json bool, ui *UI) error { return nil }
func Test(ctx context.Context, ui *UI) error { return nil }
func Check(ctx context.Context, ui *UI) error { return nil }

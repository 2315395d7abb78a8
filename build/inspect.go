package build

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"pretag/build/inspect"
	"pretag/build/release"
)

// Inspect prints what an archive, a helper tarball, an rpm or a deb holds, as
// text or as JSON. A file with problems is an error.
func Inspect(ctx context.Context, c Config, file string, asJSON bool, ui *UI) error {
	if strings.HasPrefix(file, "-") {
		return fmt.Errorf("inspect %s: the file comes first: inspect FILE -json", file)
	}
	found, err := inspect.File(ctx, file, c.Catalogue, c.CatalogueSum == "")
	if err != nil {
		return err
	}
	if asJSON {
		var data []byte
		data, err = release.JSON(found)
		err = errors.Join(err, ui.Write(data))
	} else {
		err = ui.Print(found.Text())
	}
	switch n := len(found.Problems); n {
	case 0:
	case 1:
		err = errors.Join(err, fmt.Errorf("inspect %s: 1 problem", file))
	default:
		err = errors.Join(err, fmt.Errorf("inspect %s: %d problems", file, n))
	}
	return err
}

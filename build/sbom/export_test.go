package sbom

// Headers takes the packages' headers out of an rpm database.
func Headers(db, wal []byte) ([][]byte, error) { return rpmHeaders(db, wal) }

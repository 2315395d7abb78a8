package testutil

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// GoProgram returns a small ELF file with the build information of a program that Go
// built: Go's version, and the lines of module and build settings that
// debug.ParseBuildInfo reads (debug/buildinfo, Go 1.26). It cannot run.
func GoProgram(tb testing.TB, goVersion, info string) []byte {
	tb.Helper()
	const marker = "----------------"
	var recorded bytes.Buffer
	recorded.WriteString("\xff Go buildinf:\x00\x02")
	recorded.Write(make([]byte, 16))
	for _, text := range []string{goVersion, marker + info + marker} {
		recorded.Write(binary.AppendUvarint(nil, uint64(len(text))))
		recorded.WriteString(text)
	}
	var header elf.Header64
	copy(header.Ident[:], elf.ELFMAG+"\x02\x01\x01") // 64 bits, little endian
	header.Type, header.Machine, header.Version = uint16(elf.ET_EXEC), uint16(elf.EM_X86_64), 1
	header.Ehsize, header.Phoff, header.Phentsize, header.Phnum = 64, 64, 56, 1
	header.Shentsize = 64
	size := uint64(recorded.Len())
	data := elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W), Off: 128, Vaddr: 0x1000, Filesz: size, Memsz: size}
	var file bytes.Buffer
	if err := errors.Join(binary.Write(&file, binary.LittleEndian, header), binary.Write(&file, binary.LittleEndian, data)); err != nil {
		tb.Fatal(err)
	}
	file.WriteString(strings.Repeat("\x00", 8))
	file.Write(recorded.Bytes())
	return file.Bytes()
}

package transfer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// spoolMemory is how much of a backup stream is kept in memory. What is larger goes to a file.
const spoolMemory = 4 << 20

// spool keeps the backup stream of one file.
type spool struct {
	dir  string
	mem  []byte
	file *os.File
	size int64 // of the file's part in use
	out  *bufio.Writer
}

func (s *spool) Write(p []byte) (int, error) {
	if s.out == nil {
		if len(s.mem)+len(p) <= spoolMemory {
			s.mem = append(s.mem, p...)
			return len(p), nil
		}
		if err := s.spill(); err != nil {
			return 0, err
		}
	}
	n, err := s.out.Write(p)
	s.size += int64(n)
	return n, err
}

// spill moves what is in memory to a file.
func (s *spool) spill() error {
	if s.file == nil {
		file, err := os.CreateTemp(s.dir, ".stream-")
		if err != nil {
			return fmt.Errorf("keep a large file: %w", err)
		}
		s.file = file
		_ = os.Remove(file.Name()) // so that a killed process leaves nothing; where the system forbids it, close does it
	}
	s.out = bufio.NewWriterSize(s.file, 1<<20)
	n, err := s.out.Write(s.mem)
	s.size = int64(n)
	return err
}

func (s *spool) flush() error {
	if s.out == nil {
		return nil
	}
	return s.out.Flush()
}

// reader returns what was written, after flush.
func (s *spool) reader() *io.SectionReader {
	if s.out == nil {
		return io.NewSectionReader(bytes.NewReader(s.mem), 0, int64(len(s.mem)))
	}
	return io.NewSectionReader(s.file, 0, s.size)
}

// reset forgets what was written.
func (s *spool) reset() {
	s.mem, s.size = s.mem[:0], 0
	if s.out == nil {
		return
	}
	s.out = nil
	_, _ = s.file.Seek(0, io.SeekStart) // a regular file
}

func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	if gone := os.Remove(s.file.Name()); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	s.file, s.out = nil, nil
	return err
}

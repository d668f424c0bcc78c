package rootfs

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// The superblock of XFS, at the start of its first block: xfs_dsb of fs/xfs/libxfs/xfs_format.h. Numbers are big endian.
const (
	xfsMagic     = "XFSB"
	xfsBlockSize = 4  // uint32
	xfsLogStart  = 48 // uint64, the block that the log is from; 0 where the log is on another device
	xfsLogBlocks = 96 // uint32
	xfsSuper     = 100
)

// room returns how many bytes of an image of that size are for what is written: the file system has the rest for its log. It
// is what statfs(2) tells when the volume is mounted.
func (v *Volume) room(size uint64) (uint64, error) {
	f, err := os.Open(v.path(volumeImage))
	if err != nil {
		return 0, err
	}
	super := make([]byte, xfsSuper)
	_, err = io.ReadFull(f, super)
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	block := uint64(binary.BigEndian.Uint32(super[xfsBlockSize:]))
	if string(super[:len(xfsMagic)]) != xfsMagic || block == 0 {
		return size, nil
	}
	size -= size % block
	if binary.BigEndian.Uint64(super[xfsLogStart:]) == 0 {
		return size, nil
	}
	return size - min(size, block*uint64(binary.BigEndian.Uint32(super[xfsLogBlocks:]))), nil
}

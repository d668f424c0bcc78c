// Package ntfs3g makes NTFS volumes in files and reads them, with the programs of ntfs-3g: mkntfs formats, and a volume
// that is mounted takes entries of Windows layers with all that NTFS keeps of them, and gives them back.
//
// It mounts, and so is for root alone; the mount is in a directory that nobody else can reach. It knows no images: the
// file that a volume is in has the bytes of one partition. Package disk puts them into partitions and disk images.
package ntfs3g
